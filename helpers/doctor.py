"""What is wrong with this installation or machine, in one line each, with the mend.

It has to speak where nothing else does: on another Python, beside broken packages. So it imports
nothing of the stack itself; whether that can be imported is tried in a process of its own.
"""

# Python 3.9, which macOS has, is told here that it is the wrong one.
from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import environment
from helpers.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USAGE = "usage: python -m helpers doctor [--json]"
KERNEL = "sparse-transfer"
STACK = "torch, transformers.trainer, sparseml.transformers, onnxruntime"
# Seconds; a cold disk takes half a minute.
IMPORT_LIMIT = 180
# Gigabytes: what training MiniLM takes at most, and what the tutorial writes.
MEMORY_NEEDED, DISK_NEEDED = 4, 3

# Packages that break the stack when they are newer than the lock's, and by what one knows them.
SYMPTOMS = {
    "setuptools": "`No module named 'pkg_resources'` when sparseml is imported",
    "pyarrow": "`pyarrow requires NumPy 2.0 or newer` from transformers",
    "numpy": "`numpy.core.multiarray failed to import`; SparseML was built for NumPy 1",
    "compressed-tensors": "`No module named 'transformers.masking_utils'`",
    "accelerate": "an unexpected `dispatch_batches` in the Trainer",
    "transformers": "SparseML's Trainer overrides methods that have changed",
    "sparseml": "1.9.0 is a stub that only prints a notice",
    "deepsparse": "1.9.0 is a stub that only prints a notice",
    "torch": "an export that asks for `onnxscript`, or int8 training that fails",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        status: OK, WARN (it runs, but mind this) or FAIL (it will not).
        what: what was looked at, and found.
        mend: what to do; empty where there is nothing to do.
    """

    status: str
    what: str
    mend: str = ""

    def __str__(self) -> str:
        """Return the line a person reads."""
        mend = f" -> {self.mend}" if self.mend else ""
        return f"[{self.status}]".ljust(7) + self.what + mend


def examine(*, imports: bool = True) -> list[Finding]:
    """Look at everything, in the order in which it would break.

    Args:
        imports: also import the stack, which takes some seconds.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [python, packages]
    if imports:
        checks.append(stack)
    checks += [processor, memory_and_disk, kernel, end_of_life]
    return [finding for check in checks for finding in check()]


def problems() -> list[Finding]:
    """Return what is not in order and can be told at once: for the first cell of a notebook."""
    found = [f for check in (python, packages, memory_and_disk) for f in check()]
    return [finding for finding in found if finding.status != "OK"]


def python() -> Iterator[Finding]:
    """Is it Python 3.11, on a system that the stack runs on?"""
    name = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    try:
        environment.check_python()
    except UserError as error:
        yield Finding("FAIL", name, str(error))
        return
    if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
        yield Finding("OK", name)
        return
    yield Finding("WARN", name, "DeepSparse is for Linux; its timings are left out here.")


def packages() -> Iterator[Finding]:
    """Are the packages those of the lock? Those that are known to break the stack come first."""
    try:
        locked = environment.locked_versions()
    except UserError as error:
        yield Finding("FAIL", "packages: those of the lock cannot be read", str(error))
        return
    different = environment.differing_packages(locked)
    if not different:
        yield Finding("OK", f"packages: {len(locked)}, all as in requirements.lock")
        return
    known = {name: versions for name, versions in different.items() if name in SYMPTOMS}
    for name, (wanted, found) in known.items():
        symptom = "the first import fails" if found == "absent" else SYMPTOMS[name]
        what = f"{name} is {found}, not {wanted}: {symptom}"
        yield Finding("FAIL", what, environment.right_packages())
    others = [name for name in different if name not in known]
    if others:
        what = f"packages: {len(others)} others differ from requirements.lock ({others[0]} first)"
        yield Finding("WARN" if known else "FAIL", what, environment.right_packages())


def stack() -> Iterator[Finding]:
    """Can it be imported? Versions may be right and files be missing."""
    wanted = f"{STACK}, deepsparse" if sys.platform == "linux" else STACK
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import helpers, {wanted}"],
            cwd=environment.REPOSITORY,
            capture_output=True,
            text=True,
            timeout=IMPORT_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Finding("FAIL", f"imports: no end after {IMPORT_LIMIT} s", "Is the disk a slow one?")
        return
    if done.returncode == 0:
        yield Finding("OK", f"imports: {wanted}")
        return
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    yield Finding("FAIL", f"imports: {reason[:200]}", environment.right_packages())


def processor() -> Iterator[Finding]:
    """What may be expected of this CPU?"""
    try:
        cpu = environment.machine()
    except ImportError as error:
        yield Finding("WARN", f"CPU: not looked at ({error})", environment.right_packages())
        return
    name = f"CPU: {cpu['cpu']}, {environment.in_cores(cpu['cores'])}"
    if cpu["amx"] or cpu["vnni"]:
        word = "AMX" if cpu["amx"] else "VNNI"
        yield Finding(
            "OK", f"{name}, {word}: int8 is fast, and zeros in blocks of four are skipped"
        )
    elif cpu["avx512"]:
        mend = "Compare sparse fp32 with dense fp32; int8 gains little."
        yield Finding("WARN", f"{name}, AVX-512 without VNNI", mend)
    else:
        mend = "Sparse and int8 models gain little in time; sizes and accuracies are the same."
        yield Finding("WARN", f"{name}, neither AVX-512 nor VNNI", mend)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > cpu["cores"] + 0.5:
        what = f"load: {busy:.1f} processes want {environment.in_cores(cpu['cores'])}"
        yield Finding("WARN", what, "Timings will jump. Wait for the others, or stop them.")


def memory_and_disk() -> Iterator[Finding]:
    """Is there enough of both?"""
    yield disk()
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    enough = memory >= MEMORY_NEEDED - 0.5
    mend = "" if enough else f"Training takes up to {MEMORY_NEEDED} GB. Use TUTORIAL_TIER=smoke."
    yield Finding("OK" if enough else "WARN", f"memory: {memory:.0f} GB", mend)


def disk() -> Finding:
    """Is there room where runs are kept, and may it be written to?"""
    try:
        folder = environment.runs_folder()
    except UserError as error:
        return Finding("FAIL", "disk: no folder for runs", str(error))
    existing = environment.existing_part(folder)
    free = shutil.disk_usage(existing).free / 2**30
    what = f"disk: {free:.0f} GB free for {folder.name}/"
    if not environment.can_write(existing):
        what = f"disk: {existing.name}/ is read-only"
        return Finding("FAIL", what, "Set TUTORIAL_RUNS elsewhere.")
    if free >= DISK_NEEDED:
        return Finding("OK", what)
    mend = f"{DISK_NEEDED} GB are needed. Free some, or set TUTORIAL_RUNS to another disk."
    return Finding("WARN" if free > DISK_NEEDED / 6 else "FAIL", what, mend)


def kernel() -> Iterator[Finding]:
    """Does Jupyter know the kernel that the notebooks name, and is it this Python's?"""
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        yield Finding("FAIL", f"Jupyter: {error}", environment.right_packages())
        return
    try:
        command = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel:
        mend = "Run `make setup`; or begin with `import any_kernel` on whichever kernel there is."
        yield Finding("WARN", f"Jupyter: no kernel called {KERNEL}", mend)
        return
    if Path(command).exists() and Path(command).parent.samefile(Path(sys.executable).parent):
        yield Finding("OK", f"Jupyter: the kernel {KERNEL} is this Python")
        return
    mend = "Run `make setup` in this folder, or `make lab`, which takes the right one."
    yield Finding("WARN", f"Jupyter: the kernel {KERNEL} is another Python than this", mend)


def end_of_life() -> Iterator[Finding]:
    """What everybody should know who builds on this."""
    yield Finding(
        "WARN",
        "SparseML and DeepSparse reached their end of life on 2 June 2025; DeepSparse's licence "
        "allows evaluation, not production",
        "Learn the method here; build products on a maintained engine.",
    )


def main(argv: list[str]) -> int:
    """Print one line for each thing looked at; return 1 if anything will not work.

    It parses by itself: the package that the commands parse with may be the broken one.
    """
    if argv in (["-h"], ["--help"]):
        print(f"{USAGE}\n\n{__doc__}")
        return 0
    if argv not in ([], ["--json"]):
        print(f"error: {argv[0]} is unknown. {USAGE}", file=sys.stderr)
        return 2
    found = examine()
    failed = any(finding.status == "FAIL" for finding in found)
    if argv:
        print(json.dumps({"ok": not failed, "findings": [vars(finding) for finding in found]}))
    else:
        print("\n".join(map(str, found)))
    return int(failed)
