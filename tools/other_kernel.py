"""Make a Jupyter kernel of another Python, with nothing but ipykernel, and print its Python.

    python tools/other_kernel.py 3.12

Why: a notebook is to run on the kernels that readers have, which know nothing of this project; so
the tests and `make bridged` need such kernels. How: a Python of that version is looked for on the
PATH, in pyenv and in uv, and gets a virtual environment in runs/kernels/, once. Its kernel is
called python-3.12; Jupyter finds it where JUPYTER_PATH names share/jupyter in that environment.
Exit code 2: there is no such Python here, or ipykernel could not be installed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NoReturn

KERNELS = Path(__file__).resolve().parents[1] / "runs" / "kernels"


def candidates(version: str) -> Iterator[str]:
    """Yield every Python of a version there might be."""
    yield from filter(None, [shutil.which(f"python{version}")])
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))
    if shutil.which("uv"):
        found = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True)
        yield from found.stdout.split()


def works(python: str, version: str) -> bool:
    """Tell whether a Python runs, is of that version and can build an environment."""
    program = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.strip() == version


def make(version: str) -> Path:
    """Make the environment and its kernel, whole or not at all; return its Python."""
    home = KERNELS / version
    python = home / "bin" / "python"
    if is_made(home, version):
        return python
    base = next((c for c in candidates(version) if works(c, version)), None)
    if base is None:
        complain(f"There is no Python {version} here. Get one: uv python install {version}")
    shutil.rmtree(home, ignore_errors=True)
    install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", ipykernel()]
    register = ["-m", "ipykernel", "install", "--sys-prefix", "--name", f"python-{version}"]
    for command in ([base, "-m", "venv", str(home)], [python, *install], [python, *register]):
        if subprocess.run(command, stdout=sys.stderr).returncode:
            complain(f"A kernel of Python {version} could not be made; the lines above say why.")
    return python


def is_made(home: Path, version: str) -> bool:
    """Tell whether an environment is whole, its Python still there, and its ipykernel ours."""
    # The kernel's own file is the last thing that is written.
    if not (home / "share" / "jupyter" / "kernels" / f"python-{version}").is_dir():
        return False
    program = "from importlib import metadata; print('ipykernel==' + metadata.version('ipykernel'))"
    try:
        done = subprocess.run(
            [home / "bin" / "python", "-c", program], capture_output=True, text=True
        )
    except OSError:
        return False
    return done.stdout.strip().startswith(ipykernel())


def ipykernel() -> str:
    """Return which ipykernel to install: this environment's, or any where it has none."""
    try:
        return f"ipykernel=={metadata.version('ipykernel')}"
    except metadata.PackageNotFoundError:
        return "ipykernel"


def complain(message: str) -> NoReturn:
    """Say why there is no such kernel, and end."""
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        complain("Say which Python, such as: python tools/other_kernel.py 3.12")
    print(make(sys.argv[1]))
