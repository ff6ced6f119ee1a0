"""Where a number was made: Python, packages, CPU and folders.

Every result of this project carries `describe()`, so that a reader can tell whether a figure
that differs from theirs differs because of the machine.
"""

# Python 3.9, which macOS has, gets as far as being told that it is the wrong one.
from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from helpers.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHON = (3, 11)
REPORTED_PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "sparseml",
    "deepsparse",
    "onnx",
    "onnxruntime",
    "numpy",
)


def runs_folder() -> Path:
    """Return the folder that keeps checkpoints, exports and caches (`TUTORIAL_RUNS`).

    Raises:
        UserError: if that is a file.
    """
    folder = Path(os.environ.get("TUTORIAL_RUNS", REPOSITORY / "runs")).resolve()
    if os.path.isfile(folder):  # where Path.is_file raises, below a folder that is not ours
        raise UserError(f"TUTORIAL_RUNS names a file, {folder}. Expected a folder.")
    return folder


def existing_part(folder: Path) -> Path:
    """Return the folder itself, or the nearest above it that is there."""
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))


def can_write(folder: Path) -> bool:
    """Tell whether files can be made in a folder that is there."""
    if not os.access(folder, os.W_OK):
        return False
    try:  # Root may write anywhere by its rights, and still not into /sys.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def check_writable(folder: Path) -> None:
    """Refuse to begin what could not be kept in the end.

    Raises:
        UserError: if the folder, or the one it would be made in, cannot be written to.
    """
    there = existing_part(folder)
    if not can_write(there):
        raise UserError(
            f"{folder} is to be written, and {there} cannot be written to. "
            "Set TUTORIAL_RUNS to a folder of yours."
        )


def check_python() -> None:
    """Refuse a Python the stack cannot run on.

    Raises:
        UserError: on any Python but 3.11, and on Windows.
    """
    if sys.platform == "win32":
        raise UserError(
            "This is Windows; the stack runs on Linux and macOS, DeepSparse on Linux only. "
            "Use the Windows Subsystem for Linux (wsl --install)."
        )
    if sys.version_info[:2] == PYTHON:
        return
    found = ".".join(map(str, sys.version_info[:3]))
    raise UserError(
        f"This is Python {found}; SparseML 1.8 and this project's lock need Python 3.11. "
        "Run `make setup`, then use .venv/bin/python or the Jupyter kernel 'sparse-transfer'."
    )


def locked_versions(lock: Path = REPOSITORY / "requirements.lock") -> dict[str, str]:
    """Read `name==version` lines of the lock file that hold on this platform; no build tags."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError as error:
        raise UserError(f"The package packaging is absent. {right_packages()}") from error

    versions = {}
    for line in lock.read_text().splitlines():
        if "==" not in line or line.startswith((" ", "#", "-")):
            continue
        wanted = Requirement(line.rstrip(" \\"))
        if wanted.marker is None or wanted.marker.evaluate():
            versions[wanted.name.lower()] = str(wanted.specifier)[2:].split("+")[0]
    return versions


def differing_packages(locked: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return `{package: (locked, installed)}` where the two differ; build tags are ignored."""
    installed = {name: package_version(name).split("+")[0] for name in locked}
    return {n: (locked[n], found) for n, found in installed.items() if found != locked[n]}


def check_packages() -> None:
    """Refuse packages other than the locked ones: the stack is end-of-life and breaks in silence.

    Raises:
        UserError: names up to three packages that differ.
    """
    if os.environ.get("TUTORIAL_ANY_VERSIONS"):
        return
    different = differing_packages(locked_versions())
    if not different:
        return
    found = "; ".join(f"{n} is {got}, not {want}" for n, (want, got) in list(different.items())[:3])
    raise UserError(
        f"Installed packages differ from requirements.lock: {found}. "
        f"{right_packages()} (TUTORIAL_ANY_VERSIONS=1 lets you try your luck.)"
    )


def right_packages() -> str:
    """Say how this Python, or another one, comes to the locked packages."""
    home = REPOSITORY / ".venv"
    # Its set-up writes the stamp last.
    if not (home / "lock.stamp").is_file():
        return "Run `make setup`."
    if Path(sys.prefix).resolve() == home.resolve():
        return "Delete .venv and run `make setup`."
    return "Take .venv/bin/python, or the kernel sparse-transfer, which have the right ones."


def package_version(name: str) -> str:
    """Return the installed version of a package, or "absent"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


@cache
def machine() -> dict[str, Any]:
    """Describe the CPU: model, usable cores, memory (GB) and the instructions that matter here."""
    import cpuinfo
    import psutil

    info = cpuinfo.get_cpu_info()
    flags = set(info.get("flags", []))
    return {
        "cpu": info.get("brand_raw", platform.processor() or "unknown"),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "avx512": "avx512f" in flags,
        "vnni": bool(flags & {"avx512_vnni", "avx512vnni", "avx_vnni"}),
        "bf16": bool(flags & {"avx512_bf16", "amx_bf16"}),
        "amx": "amx_tile" in flags,
        "system": platform.system(),
    }


def usable_cores() -> int:
    """Return the cores this process may use, which in a container is fewer than there are.

    A container's share of time (`docker run --cpus=2`) counts too, if joblib is installed, which
    knows where to look for it.
    """
    with contextlib.suppress(ImportError):
        from joblib.externals.loky import cpu_count  # joblib's own says 1 without /dev/shm

        return cpu_count()
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Return what belongs beside every stored number: Python, package versions and machine."""
    return {
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in REPORTED_PACKAGES},
        "machine": machine() | graphics(),
    }


def graphics() -> dict[str, str]:
    """Return the GPU that a run can have used; nothing without one, or before Torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"gpu": torch.cuda.get_device_name()}


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Refuse to start writing what will not fit.

    Raises:
        UserError: if the disk that holds `folder` has less than `needed_bytes` free.
    """
    free = shutil.disk_usage(existing_part(folder)).free
    if free >= needed_bytes:
        return
    raise UserError(
        f"No space for {folder.name}: {needed_bytes / 2**20:.0f} MB needed, "
        f"{free / 2**20:.0f} MB free. Free some, or choose another disk (or TUTORIAL_RUNS)."
    )


def in_cores(count: int) -> str:
    """Return a number of cores in words."""
    return f"{count} core{'s' * (count != 1)}"


def banner() -> str:
    """Return what a notebook prints first: Python, packages, CPU, size, and what is wrong."""
    from helpers import doctor, tiers

    cpu = machine()
    features = [
        word for word, key in (("VNNI", "vnni"), ("bf16", "bf16"), ("AMX", "amx")) if cpu[key]
    ]
    packages = ", ".join(f"{name} {package_version(name)}" for name in REPORTED_PACKAGES[:6])
    lines = (
        f"Python {platform.python_version()}; {packages}\n"
        f"{cpu['cpu']}, {cpu['cores']} cores, {', '.join(features) or 'no VNNI, no bf16'}\n"
        f"size: {tiers.current().name} (TUTORIAL_TIER)"
    )
    return "\n".join([lines, *map(str, doctor.problems())])
