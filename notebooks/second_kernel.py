"""A second kernel of another Python: its process and its channels.

Why: the notebook is connected to one kernel, the packages are in another Python. How: this file,
run by that Python, is the second kernel; imported by the first, it starts it and speaks the
protocol of Jupyter with it. The second one ends with the first, however the first one ends.

Runs on Python 3.8 and later with what a Jupyter kernel brings.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

POLL_MS = 200
SECONDS_TO_END = 3
LINES = 8  # of a dead kernel's last words


class KernelDiedError(RuntimeError):
    """The second kernel is gone."""


class SecondKernel:
    """The second kernel, as the first one sees it.

    Args:
        python: the Python that runs it.
        folder: where it works.
        variables: its environment.

    Raises:
        KernelDiedError: if it does not start. Later, each method that waits for it may.
    """

    def __init__(self, python: Path, folder: Path, variables: dict[str, str]) -> None:
        self.last_words = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - kept
        self.greeting = 0  # bytes of what every kernel says as it starts
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "kernel.json"
            # Frozen modules make every start warn of debuggers.
            command = [str(python), "-Xfrozen_modules=off", __file__, str(os.getpid())]
            self.process = subprocess.Popen(
                [*command, "-f", str(file)],
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=self.last_words,
                stderr=self.last_words,
                start_new_session=True,  # the first kernel decides which signals it gets
            )
            atexit.register(self.close)
            try:
                self._connect(self._announced(file))
                self.greeting = os.fstat(self.last_words.fileno()).st_size
            except BaseException:
                self.signal(signal.SIGKILL)
                raise

    def _announced(self, file: Path) -> dict[str, Any]:
        """Return the ports and the key that it writes into a file, once it has."""
        while True:
            with suppress(OSError, ValueError):  # not there yet, or not whole
                return json.loads(file.read_text())
            self._check_alive()
            time.sleep(0.02)

    def _connect(self, found: dict[str, Any]) -> None:
        """Open the channels; return when it has been heard."""
        import zmq
        from jupyter_client.session import Session

        scheme = found["signature_scheme"]
        self.session = Session(key=found["key"].encode(), signature_scheme=scheme)
        context = zmq.Context()
        self.sockets = {}
        for name in ("shell", "stdin", "control", "iopub"):
            socket = context.socket(zmq.SUB if name == "iopub" else zmq.DEALER)
            # input() is asked on the channel that has the name of the one the cell came by.
            socket.identity = self.session.bsession
            socket.linger = 1000
            socket.connect(f"tcp://{found['ip']}:{found[name + '_port']}")
            self.sockets[name] = socket
        self.sockets["iopub"].subscribe(b"")
        # What is said before the subscription is through is lost, so ask until something comes.
        while not self.sockets["iopub"].poll(POLL_MS):
            self._check_alive()
            self.send("kernel_info_request", {})

    def send(
        self,
        kind: str,
        content: dict[str, Any],
        channel: str = "shell",
        number: str | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: list[Any] | None = None,
    ) -> str:
        """Send a message, under a number of its own unless one is given; return the number."""
        message = self.session.msg(kind, content, metadata=metadata)
        if number is not None:
            message["header"]["msg_id"] = message["msg_id"] = number
        self.session.send(self.sockets[channel], message, buffers=buffers)
        return message["header"]["msg_id"]

    def has_said(self, channel: str) -> bool:
        """Tell whether a message waits."""
        return bool(self.sockets[channel].poll(0))

    def next(self, *channels: str) -> tuple[str, dict[str, Any]]:
        """Wait for a message; return it and its channel, the first of those that have one."""
        import zmq

        poller = zmq.Poller()
        for channel in channels:
            poller.register(self.sockets[channel], zmq.POLLIN)
        ready = dict(poller.poll(POLL_MS))
        while not ready:
            self._check_alive()
            ready = dict(poller.poll(POLL_MS))
        channel = next(name for name in channels if self.sockets[name] in ready)
        return channel, self.session.recv(self.sockets[channel])[1]

    def signal(self, number: int) -> None:
        """Send a signal to it and to the processes it has started."""
        with suppress(ProcessLookupError, PermissionError):  # gone; macOS says it the second way
            os.killpg(self.process.pid, number)

    def _check_alive(self) -> None:
        code = self.process.poll()
        if code is None:
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        memory = ": out of memory, perhaps" if code == -signal.SIGKILL else ""
        raise KernelDiedError(f"it died ({how}{memory}).{self._last_lines()}")

    def _last_lines(self) -> str:
        """Return what it said at last; in a crash that is where it was."""
        self.last_words.seek(self.greeting)
        said, crash, where = self.last_words.read().partition("Fatal Python error")
        lines = (crash + where).splitlines()[:LINES] or said.splitlines()[-LINES:]
        return "\n".join(["", *lines])

    def close(self) -> None:
        """End it: asked first, so that it can tidy up, then killed."""
        if self.process.poll() is None:
            self.send("shutdown_request", {"restart": False}, "control")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(SECONDS_TO_END)
        self.signal(signal.SIGKILL)
        self.process.wait()


def end_with(parent: int) -> None:
    """End this process, and those it has started, as soon as the one that started it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def serve() -> None:
    """Be the second kernel: `python second_kernel.py PARENT -f CONNECTION_FILE`."""
    import faulthandler

    end_with(int(sys.argv.pop(1)))
    # A copy, because ipykernel takes the original for the cells: a crash is to be read by us.
    faulthandler.enable(os.fdopen(os.dup(2), "w"), all_threads=False)
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    serve()
