"""The child's side of an engine process: answer requests until the parent hangs up.

Why: this module is all a child imports before its engine, so it is small and knows no engine.

How: `serve` makes the engine named by an import path and calls the methods it is asked for;
an exception is an answer too.
"""

import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

CALLS_A_STREAM = 4
OPENVINO_FILE = "model.xml"  # its weights lie beside it
LONGEST_ANSWER = 2000  # characters of an exception; the parent cuts out what matters


@dataclass(frozen=True)
class Setup:
    """What an engine is prepared for.

    Attributes:
        batch_size, sequence_length: the shape of every input.
        threads: that share the work of all calls.
        streams: calls that may come at once, each with its share of the threads.
    """

    batch_size: int
    sequence_length: int
    threads: int
    streams: int = 1

    @property
    def shape(self) -> list[int]:
        """The shape of every input."""
        return [self.batch_size, self.sequence_length]

    @property
    def threads_a_call(self) -> int:
        """How many threads one call has."""
        return max(1, self.threads // self.streams)


def serve(descriptor: int, engine: str) -> None:
    """Answer the parent's requests until it hangs up; this is the child's whole life."""
    die_with_parent()
    pipe = Connection(descriptor)
    worker = import_path(engine)()
    while True:
        try:
            method, arguments = pipe.recv()
        except (EOFError, ConnectionError):
            os._exit(0)  # native libraries have been seen to abort while being unloaded
        try:
            if method == "run_many":
                answer = run_many(worker.run, *arguments)
            elif method == "peak_memory_mb":
                answer = peak_memory_mb()
            else:
                answer = getattr(worker, method)(*arguments)
            pipe.send((True, answer))
        except Exception as error:  # whatever an engine raises is a reason to report
            pipe.send((False, f"{type(error).__name__}: {str(error).strip()[:LONGEST_ANSWER]}"))


def run_many(run: Callable[[Any], Any], inputs: dict[str, np.ndarray], setup: Setup) -> float:
    """Run the same inputs over and over, several calls at once; return the seconds of one.

    That is the time of all of them divided by their number, so it says how many get done.
    """
    calls, start = CALLS_A_STREAM * setup.streams, time.perf_counter()
    list(threads(setup.streams).map(run, [inputs] * calls))
    return (time.perf_counter() - start) / calls


@cache
def threads(count: int) -> ThreadPoolExecutor:
    """Return the threads that call an engine; the same ones in every round."""
    return ThreadPoolExecutor(count)


def die_with_parent() -> None:
    """Ask Linux to end this process with its parent: a paused child cannot notice a hang-up."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def peak_memory_mb() -> float:
    """Return this process's peak memory.

    Linux is asked for its VmHWM: the usual `ru_maxrss` survives exec, so a child of a big
    notebook kernel would report the kernel's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    import resource  # not on Windows

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def import_path(path: str) -> Any:  # noqa: ANN401 - any object
    """Import `package.module:name.of.attribute`."""
    module, _, attributes = path.partition(":")
    found = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


def own_dtype(array: np.ndarray) -> np.ndarray:
    """Copy an array that came over a pipe into one with numpy's own dtype object.

    DeepSparse compares dtypes by identity. Unpickling makes a new int64 object, and it answers
    "input_ids has unsupported type 'int64'"; `np.array(a, dtype=...)` keeps the foreign object.
    """
    copy = np.empty(array.shape, array.dtype.type)
    copy[...] = array
    return copy
