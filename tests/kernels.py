"""Real Jupyter kernels of other Pythons, and cells run on them, for the tests of the bridge."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from traitlets import Unicode

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.12", "3.13")
SECONDS = 60


@dataclass
class Cell:
    """What a cell has shown, message by message, the reply to it, and what it has asked."""

    messages: list[dict[str, Any]]
    reply: dict[str, Any]
    asked: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the contents of the messages of a kind."""
        return [m["content"] for m in self.messages if m["msg_type"] == kind]

    def text(self, stream: str = "stdout") -> str:
        """Return what was printed."""
        return "".join(c["text"] for c in self.of("stream") if c["name"] == stream)

    @property
    def value(self) -> str:
        """Return the last expression, as text."""
        return self.of("execute_result")[0]["data"]["text/plain"]


@dataclass
class Kernel:
    """A running kernel."""

    manager: KernelManager
    client: BlockingKernelClient

    def run(self, code: str, answer: str = "", seen: Callable[[dict], None] | None = None) -> Cell:
        """Run a cell; `answer` goes to input(), `seen` gets every message as it comes."""
        messages: list[dict[str, Any]] = []
        asked: list[dict[str, Any]] = []

        def keep(message: dict[str, Any]) -> None:
            messages.append(message)
            if seen:
                seen(message)

        def give(request: dict[str, Any]) -> None:
            asked.append(request["content"])
            self.client.input(answer)

        reply = self.client.execute_interactive(
            code,
            allow_stdin=True,
            output_hook=keep,
            stdin_hook=give,
            timeout=SECONDS,
        )
        return Cell(messages, reply["content"], asked)

    @property
    def pid(self) -> int:
        """Return the process of the kernel that the notebook is connected to."""
        return self.manager.provisioner.pid


@cache
def other_python(version: str) -> Path:
    """Return a Python that has ipykernel only; skips the test where there is none."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "other_kernel.py"), version],
        capture_output=True,
        text=True,
    )
    if made.returncode == 2:
        pytest.skip(made.stderr.strip().splitlines()[-1])
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


class OnePython(KernelSpecManager):
    """Knows one kernel, that of the Python it is made for."""

    python = Unicode()

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return the kernel, whatever it is called."""
        command = [self.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


@contextmanager
def started(python: Path, folder: Path, **variables: str) -> Iterator[Kernel]:
    """Start a kernel of a Python in a folder; "" takes a variable away."""
    manager = KernelManager(kernel_spec_manager=OnePython(python=str(python)))
    # ipykernel leaves the output of child processes alone where it believes to be under test.
    environment = {**os.environ, "PYTEST_CURRENT_TEST": "", **variables}
    manager.start_kernel(cwd=str(folder), env={k: v for k, v in environment.items() if v})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@contextmanager
def bridged(version: str, folder: Path = ROOT / "notebooks", **variables: str) -> Iterator[Kernel]:
    """Start a kernel of another Python and run the first cell; ours is behind it then."""
    variables = {"TUTORIAL_PYTHON": sys.executable, **variables}
    with started(other_python(version), folder, **variables) as kernel:
        cell = kernel.run("import any_kernel")
        assert cell.reply["status"] == "ok", cell.of("error")
        yield kernel
