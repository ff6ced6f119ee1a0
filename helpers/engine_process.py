"""One engine in one child process: the parent's handle.

Why: a native engine may abort, hang, spin on every core or rewrite its model file. None of that
may reach the notebook's kernel or the model on disk.

How: a fresh Python (not a fork, and no re-import of `__main__`, so it works from a notebook, from
pytest and from a command) runs `engine_child.serve` and answers over a socket pair, with a time
limit. It is given a private copy of the
model; the sha256 of the original is compared before and after.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from helpers import compat_engines, environment
from helpers.engine_child import Setup
from helpers.errors import ProofError, UserError
from helpers.model_files import files_of, fingerprint, private_copy
from helpers.model_inputs import Inputs, fitted, inputs_of, misfit

TIMEOUT = 120.0  # seconds for one answer; compiling a BERT-base on a busy laptop takes about 20
CHILD = "import sys; from helpers.engine_child import serve; serve(int(sys.argv[1]), sys.argv[2])"


class EngineError(RuntimeError):
    """An engine could not take or run a model; the message is the reason."""


class EngineProcess:
    """A child process that holds one engine and one model; use it in a `with` block.

    Args:
        engine: import path `module:Class` of the engine.
        model: an ONNX file or a checkpoint folder; it is copied, never handed out.
        timeout: seconds any one answer may take.

    Raises:
        UserError: if the model, or a file that belongs to it, is missing or damaged.
    """

    def __init__(self, engine: str, model: Path, *, timeout: float = TIMEOUT) -> None:
        if not model.exists():
            raise UserError(f"There is no model {model}. Give an ONNX file or a checkpoint folder.")
        self.name, self.model, self.timeout = engine.rpartition(":")[2], model, timeout
        self.files, self.inputs = files_of(model), inputs_of(model)
        self.sha256 = fingerprint(model, self.files)
        self.process: subprocess.Popen | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="engine-")
        try:
            self._copy = private_copy(model, self.files, Path(self._folder.name))
            self._start(engine)
        except BaseException:
            self._folder.cleanup()
            raise

    def _start(self, engine: str) -> None:
        self._pipe, theirs = Pipe()
        paths = os.pathsep.join(path for path in sys.path if path)
        with (Path(self._folder.name) / "stderr").open("wb") as stderr, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(theirs.fileno()), engine],
                env=os.environ | {"PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def prepare(
        self,
        batch_size: int,
        sequence_length: int,
        num_threads: int | None = None,
        streams: int = 1,
    ) -> dict[str, Any]:
        """Load and compile the model; return the engine's description of itself.

        `streams` calls may then come at once, each with its share of the threads.

        Besides what the engine says, the description holds `compile_seconds`, the import of the
        engine's package included.

        Raises:
            EngineError: the model does not take this shape, or the engine does not take the model.
        """
        self.setup = Setup(batch_size, sequence_length, check_threads(num_threads), streams)
        if reason := misfit(self.model, self.setup):
            raise EngineError(reason)
        start = time.perf_counter()
        self.ask("prepare", self._copy, self.setup)
        seconds = time.perf_counter() - start
        return self.ask("describe") | {"engine": self.name, "compile_seconds": round(seconds, 2)}

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Return the outputs and the seconds of the bare call, pipe not included.

        The inputs are cast to the types that the model takes.

        Raises:
            UserError: the model takes one that is not given.
        """
        return self.ask("run", fitted(inputs, self.inputs))

    def run_many(self, inputs: Inputs) -> float:
        """Return the seconds of one call when as many come at once as there are streams."""
        return self.ask("run_many", fitted(inputs, self.inputs), self.setup)

    def ask(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - any answer
        """Send a request and wait for its answer.

        Raises:
            EngineError: with the child's reason, its exit signal or the time limit; the child is
                gone after the last two.
        """
        try:
            self._pipe.send((method, arguments))
            if not self._pipe.poll(self.timeout):
                self._kill()
                raise EngineError(f"{self.name} gave no answer in {self.timeout:g} s ({method}).")
            fine, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise EngineError(f"{self.name} {self._death(method)}") from error
        if fine:
            return answer
        raise EngineError(f"{self.name} refused ({method}): {compat_engines.refusal(answer)}")

    def pause(self) -> None:
        """Stop the child where it stands, spinning threads included; see `benchmark`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused child go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _death(self, method: str) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        said = (Path(self._folder.name) / "stderr").read_text(errors="replace")
        said = said.replace(f"{environment.REPOSITORY}/", "")
        return compat_engines.death(method, self.process.returncode, said)

    def close(self) -> None:
        """End the child, remove its copy, and hold the original to its sha256. May be repeated.

        Raises:
            ProofError: if the model on disk is not the one that was opened.
        """
        if self.process is None:
            return
        self._pipe.close()  # the child leaves at the end of its requests
        self.resume()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self._kill()
        self.process = None
        self._folder.cleanup()
        found = fingerprint(self.model, self.files)
        if found != self.sha256:
            mend = f"{self.name} (or another process) rewrote {self.model}: export it again."
            raise ProofError("model file unchanged", self.sha256[:12], found[:12], mend)


def check_threads(asked: int | None) -> int:
    """Return how many threads to use: what was asked, or every physical core.

    Raises:
        UserError: for more threads than cores. Two threads on one core only take turns.
    """
    cores = physical_cores()
    if asked is None:
        return cores
    if 1 <= asked <= cores:
        return asked
    raise UserError(
        f"{asked} cores were asked for, but this process may use {environment.in_cores(cores)}, "
        "hyper-threads not counted. Ask for no more."
    )


def physical_cores() -> int:
    """Return the physical cores of this machine, or the cores this process may use if fewer."""
    import psutil

    usable = environment.usable_cores()
    return min(usable, psutil.cpu_count(logical=False) or usable)
