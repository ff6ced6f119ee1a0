"""`import any_kernel`, in a cell of its own, runs a notebook on a kernel of any Python.

Why: SparseML and DeepSparse stop at Python 3.11; Colab's kernels and most machines are newer.
How: on Python 3.11 with the locked packages nothing happens. Elsewhere the environment of
`make setup` is built, once, a second kernel is started in it, and `kernel_bridge` passes every
later cell on to that kernel. Opened alone, as in Colab, the repository is fetched first.

This file runs on Python 3.8 and later and needs nothing but what a Jupyter kernel brings.
Variables: TUTORIAL_PYTHON names a Python 3.11 that has the packages already (conda);
TUTORIAL_REPOSITORY names another place to fetch the repository from.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Iterator  # noqa: UP035 - Python 3.8

from IPython import get_ipython
from IPython.display import display

# Where `git clone` finds the tutorial. The one place it stands in; tools/first_cell.py copies it
# into the notebooks. Empty: a notebook that was opened alone cannot fetch the rest.
REPOSITORY_URL = ""

FOLDER = Path(__file__).resolve().parent
FETCHED = "sparse-transfer-tutorial"
PYTHON = (3, 11)
# What a foreign environment has in another version, if at all. The notebooks check the rest.
TELLING_PACKAGES = ("sparseml", "torch", "transformers", "numpy")
# Its version, and by the exit code whether it has ipykernel; found is quicker than imported.
ASKED_OF_A_PYTHON = (
    "import sys; from importlib.util import find_spec; "
    "print('%d.%d' % sys.version_info[:2]); sys.exit(find_spec('ipykernel') is None)"
)
# They belong to this Python and its kernel: packages, the way it draws, whose end it waits for.
NOT_PASSED_ON = ("PYTHONHOME", "PYTHONPATH", "MPLBACKEND", "JPY_PARENT_PID")


class NoKernelError(RuntimeError):
    """No Python 3.11 kernel can be had; the reader sees the message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"No Python 3.11 kernel: {self}"]


def fits(repository: Path) -> bool:
    """Tell whether this Python can run the notebooks itself."""
    if sys.version_info[:2] != PYTHON:
        return False
    if os.environ.get("TUTORIAL_ANY_VERSIONS"):
        return True
    lock = (repository / "requirements.lock").read_text()
    try:
        return all(f"\n{n}=={metadata.version(n)} " in lock for n in TELLING_PACKAGES)
    except metadata.PackageNotFoundError:
        return False


def find_repository() -> Path:
    """Return the repository this file belongs to; fetch it where the file came alone."""
    for folder in (FOLDER.parent, FOLDER / FETCHED):
        if (folder / "requirements.lock").is_file():
            return folder
    return fetch(FOLDER / FETCHED)


def fetch(folder: Path) -> Path:
    """Clone the repository into a folder, whole or not at all.

    Raises:
        NoKernelError: if nobody said where it is, or it cannot be had from there.
    """
    url = os.environ.get("TUTORIAL_REPOSITORY") or REPOSITORY_URL
    if not url:
        raise NoKernelError(
            "the tutorial's other files are not here and nobody said where they are. "
            "Open the notebook in a clone, or put the clone's address into TUTORIAL_REPOSITORY."
        )
    print(f"Fetching the tutorial from {url}")
    with tempfile.TemporaryDirectory(dir=str(folder.parent)) as part:
        command = ["git", "clone", "--quiet", "--depth", "1", url, f"{part}/clone"]
        code, said = run(command)
        if code or not Path(part, "clone", "requirements.lock").is_file():
            raise NoKernelError(f"{url} could not be fetched, or is not the tutorial. {said}")
        os.rename(f"{part}/clone", folder)
    return folder


def run(command: list[str], folder: Path | None = None) -> tuple[int, str]:
    """Run a command that takes a moment; return its exit code and what it said."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode(errors="replace").strip()


def environment(**more: str) -> dict[str, str]:
    """Return the variables for a process of another Python."""
    kept = {key: value for key, value in os.environ.items() if key not in NOT_PASSED_ON}
    return {**kept, **more}


def find_python(repository: Path) -> Path:
    """Return the Python 3.11 that has the packages; build its environment where there is none.

    Raises:
        NoKernelError: if it cannot be built on this machine.
    """
    chosen = os.environ.get("TUTORIAL_PYTHON")
    if chosen:
        return checked(chosen)
    if sys.platform == "win32":
        raise NoKernelError(
            "this is Windows, the stack runs on Linux and macOS, DeepSparse on Linux only. "
            "Use the Windows Subsystem for Linux (wsl --install) and start Jupyter there."
        )
    if not is_built(repository):
        with one_at_a_time(repository):
            # Another notebook may have built it while this one waited.
            if not is_built(repository):
                build(repository)
    return repository / ".venv" / "bin" / "python"


def checked(chosen: str) -> Path:
    """Return the Python that TUTORIAL_PYTHON names, if it can run the notebooks' kernel."""
    python = shutil.which(chosen)
    if python is None:
        raise NoKernelError(f"TUTORIAL_PYTHON names {chosen}, and there is no such program.")
    code, said = run([python, "-c", ASKED_OF_A_PYTHON])
    if said.strip() != ".".join(map(str, PYTHON)):
        found = f"Python {said.strip()}" if code == 0 else "something else"
        raise NoKernelError(f"TUTORIAL_PYTHON names {chosen}; expected Python 3.11, it is {found}.")
    if code:
        raise NoKernelError(
            f"TUTORIAL_PYTHON names {chosen}, which has no ipykernel. Name a Python 3.11 that has "
            "the packages of requirements.lock, or unset the variable: one is built then."
        )
    return Path(python)


def is_built(repository: Path) -> bool:
    """Tell whether `make setup` has nothing to do."""
    return run(["bash", "tools/setup.sh", "--built"], repository)[0] == 0


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let a second notebook wait until the first has built the environment."""
    import fcntl  # not on Windows

    # A folder can be locked without writing anything into it.
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another notebook is building the environment; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def build(repository: Path) -> None:
    """Do what `make setup` does, and show how far it is.

    Raises:
        NoKernelError: if it fails; what it said is on the screen by then.
    """
    if not os.access(str(repository), os.W_OK):
        raise NoKernelError(
            f"{repository} cannot be written to, and has no .venv. Copy it to a folder of yours, "
            "or name a Python 3.11 that has the packages in TUTORIAL_PYTHON."
        )
    version = ".".join(map(str, sys.version_info[:2]))
    lacks = "" if sys.version_info[:2] != PYTHON else " without the tutorial's packages"
    print(f"This kernel is Python {version}{lacks}. Building Python 3.11 with them, once:")
    code, said = run(["bash", "tools/setup.sh", "--python"], repository)
    more = {} if code == 0 else {"PYTHON": python_by_uv(said)}
    if follow(["bash", "tools/setup.sh"], repository, environment(**more)):
        raise NoKernelError("the set-up did not finish; the lines above say why.")


def python_by_uv(advice: str) -> str:
    """Get a Python 3.11 by uv, which is itself got from PyPI where it is missing.

    Args:
        advice: what to do instead, for the reader to see if this fails.
    """
    print("There is no Python 3.11 here. Getting one with uv.")
    with tempfile.TemporaryDirectory() as folder:
        uv = shutil.which("uv") or f"{folder}/bin/uv"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "uv"]
        code, said = (0, "") if shutil.which("uv") else run(pip)
        if code == 0:
            code, said = run([uv, "python", "install", "3.11"])
        if code == 0:
            # Not that of a .venv here, which the set-up builds anew.
            code, said = run([uv, "python", "find", "--system", "3.11"])
    if code:
        raise NoKernelError(f"uv could not get one.\n{said}\n{advice}")
    return said.splitlines()[-1]  # after what it warns of


def follow(command: list[str], folder: Path, variables: dict[str, str]) -> int:
    """Run a command that takes minutes, its lines and a clock on display; return its exit code."""
    began = time.monotonic()
    screen = display({"text/plain": ""}, raw=True, display_id=True)
    with tempfile.NamedTemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = None
            while code is None:
                time.sleep(0.5)
                code = process.poll()
                minutes, seconds = divmod(int(time.monotonic() - began), 60)
                lines = Path(said.name).read_text(errors="replace")
                screen.update({"text/plain": f"{lines}[{minutes}:{seconds:02}]"}, raw=True)
            return code
        except BaseException:  # above all the reader's interrupt
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise


def connect() -> None:
    """Give this kernel a Python 3.11 to pass its cells on to, if it needs one."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return  # no notebook
    repository = find_repository()
    if fits(repository):
        return
    python = find_python(repository)
    sys.path.insert(0, str(repository / "notebooks"))
    from kernel_bridge import Bridge
    from second_kernel import KernelDiedError, SecondKernel

    folder = Path.cwd() if FOLDER.parent == repository else repository / "notebooks"
    # Notebooks import `helpers` from the repository, whatever environment it is.
    variables = environment(PYTHONPATH=str(repository))
    try:
        Bridge(kernel, SecondKernel(python, folder, variables)).take_over()
    except KernelDiedError as error:
        raise NoKernelError(str(error)) from error


connect()
