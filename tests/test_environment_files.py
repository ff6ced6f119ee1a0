"""The files that make the environment must agree: pyproject, lock, conda file, Makefile, set-up.

Why: a reader installs from one of them and trusts that it is what was tested. The lock is read with
the `packaging` library, marker by marker, as pip would read it on this machine.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from other_kernel import candidates, works
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
VERBS = (
    *("help", "setup", "lab", "tutorial", "test", "bridged"),
    *("style", "notebooks", "lock", "results"),
)
DENIED = (
    *("dvc", "dvc-data", "scmrepo", "celery", "hydra-core", "pygit2", "sentence-transformers"),
    *("triton", "cuda-toolkit", "cuda-bindings"),
)


def _lock_text() -> str:
    return (ROOT / "requirements.lock").read_text()


def _locked() -> list[tuple[Requirement, list[str]]]:
    """Return every line of the lock with its sha256 hashes; torch has one line per platform."""
    blocks = re.findall(r"^([a-z0-9][^\\\n]*?) \\\n((?: {4}--hash=.*\n?)+)", _lock_text(), re.M)
    return [
        (Requirement(line), re.findall(r"sha256:([0-9a-f]{64})", hashes)) for line, hashes in blocks
    ]


def _locked_here() -> dict[str, Requirement]:
    """Return what the lock installs on this machine, by canonical name."""
    here = (line for line, _ in _locked() if line.marker is None or line.marker.evaluate())
    return {canonicalize_name(line.name): line for line in here}


def _version(line: Requirement) -> str:
    (specifier,) = line.specifier
    return specifier.version


def _direct() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def test_lock_was_read_whole() -> None:
    starts = re.findall(r"^[a-z0-9][\w.-]*==", _lock_text(), re.M)
    assert len(starts) == len(_locked()) > 100


@pytest.mark.parametrize("wanted", _direct(), ids=lambda wanted: wanted.name)
def test_direct_dependency_is_locked(wanted: Requirement) -> None:
    name = canonicalize_name(wanted.name)
    lines = [(line, hashes) for line, hashes in _locked() if canonicalize_name(line.name) == name]
    assert lines, f"{name} is not in requirements.lock: run make lock"
    for line, hashes in lines:
        assert wanted.specifier.contains(_version(line)), f"{line} does not fit {wanted}"
        assert hashes


def test_lock_holds_no_second_version_on_one_machine() -> None:
    names = [
        canonicalize_name(line.name)
        for line, _ in _locked()
        if line.marker is None or line.marker.evaluate()
    ]
    assert len(names) == len(set(names))


def test_lock_is_free_of_what_was_left_out() -> None:
    names = {canonicalize_name(line.name) for line, _ in _locked()}
    assert not names & set(DENIED)
    assert not [name for name in names if name.startswith("nvidia-")]


def test_lock_names_no_index() -> None:
    lines = [line for line in _lock_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if "://" in line or line.startswith("-")]


def test_torch_has_the_hashes_of_every_build() -> None:
    """Four builds on the plain index for each of several Pythons, three on the CPU index."""
    lines = {_version(line): hashes for line, hashes in _locked() if line.name == "torch"}
    assert set(lines) == {"2.13.0", "2.13.0+cpu"}
    for hashes in lines.values():
        assert len(set(hashes)) == len(hashes) >= 7


def test_torch_for_linux_is_the_cpu_build() -> None:
    """Seen: from the plain line pip takes the CUDA build, which then fails to import."""
    torch = [line for line, _ in _locked() if line.name == "torch"]
    chosen = [line for line in torch if line.marker and line.marker.evaluate(_linux())]
    assert [_version(line) for line in chosen] == ["2.13.0+cpu"]


def _linux() -> dict[str, str]:
    return {"sys_platform": "linux"}


def test_deepsparse_is_for_linux_only() -> None:
    (line,) = [line for line, _ in _locked() if line.name == "deepsparse"]
    assert line.marker is not None
    assert line.marker.evaluate(_linux())
    assert not line.marker.evaluate({"sys_platform": "darwin"})


def test_installed_versions_are_the_locked_ones() -> None:
    wrong = []
    for name, line in _locked_here().items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "not installed"
        if found != _version(line):
            wrong.append(f"{line.name}: {found}, locked {_version(line)}")
    assert not wrong, "run make setup"


def test_conda_file_installs_the_lock_and_nothing_else() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    (pip_part,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert plain == ["python=3.11", "pip", "setuptools", "setuptools-scm"]
    assert pip_part[1:] == ["--require-hashes", "-r requirements.lock"]
    assert pip_part[0] == f"--extra-index-url {_cpu_index()}"


def _cpu_index() -> str:
    """Return the index of CPU builds that the set-up falls back on."""
    (index,) = re.findall(r"^CPU_INDEX=(\S+)$", (ROOT / "tools" / "setup.sh").read_text(), re.M)
    return index


def _conda_settings() -> dict[str, str]:
    """Return the variables that the command at the top of environment.yml sets for pip."""
    (line,) = re.findall(
        r"^# +(PIP_.*) conda env create", (ROOT / "environment.yml").read_text(), re.M
    )
    return {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **dict(s.split("=") for s in line.split())}


def test_conda_builds_what_comes_as_source(tmp_path: Path) -> None:
    """Isolated, pip would fetch what builds a package, and its dependencies not: PIP_NO_DEPS."""
    tools = ["setuptools", "setuptools-scm"]
    assert set(tools) < {
        *yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][:-1]
    }
    build = f'requires = {tools}\nbuild-backend = "setuptools.build_meta"'
    project = f'[project]\nname = "some"\nversion = "1"\n\n[build-system]\n{build}\n'
    (tmp_path / "pyproject.toml").write_text(project)
    call = [sys.executable, "-m", "pip", "wheel", "--no-index", "-w", tmp_path / "made", tmp_path]
    settings = _conda_settings()
    for env, made in ((settings, True), ({"PIP_NO_DEPS": settings["PIP_NO_DEPS"]}, False)):
        done = subprocess.run(call, env=os.environ | env, capture_output=True, timeout=120)
        assert (done.returncode == 0) is made, done.stderr[-1000:]


def test_conda_pip_part_finds_nothing_to_do_here(tmp_path: Path) -> None:
    """As conda does it: the pip part becomes a requirements file, --no-deps comes from outside."""
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    options = [line for line in conda["dependencies"][-1]["pip"] if not line.startswith("-r")]
    lock = tmp_path / "requirements.lock"
    shutil.copy(ROOT / "requirements.lock", lock)
    asked = tmp_path / "condaenv.requirements.txt"
    asked.write_text("\n".join([*options, "-r requirements.lock"]))
    call = [sys.executable, "-m", "pip", "install", "--no-index", "--dry-run", "-r", str(asked)]
    done = subprocess.run(
        call, env=os.environ | _conda_settings(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert "Would install" not in done.stdout


def test_python_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11,<3.12"
    assert project["tool"]["ruff"]["target-version"] == "py311"


def test_makefile_has_every_verb_and_help_names_it() -> None:
    help_text = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for verb in VERBS:
        assert re.search(rf"^  make {verb} +\S", help_text, re.M), f"{verb} is not in make help"


def test_ci_run_can_be_run() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert "make test" in run.read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with spaces in its path that has only what the set-up reads."""
    folder = tmp_path / "a check out"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "setup.sh", folder / "tools")
    shutil.copy(ROOT / "requirements.lock", folder)
    return folder


def _setup(
    checkout: Path, *arguments: str, tools: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the set-up on a machine that has bash and `tools`, and no Python but the one given."""
    path = checkout / "bin"
    path.mkdir(exist_ok=True)
    for tool in tools:
        (path / tool).symlink_to(str(shutil.which(tool)))
    return subprocess.run(
        [str(shutil.which("bash")), str(checkout / "tools" / "setup.sh"), *arguments],
        env={"PATH": str(path), "HOME": str(checkout / "home"), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_setup_without_python_311_says_how_to_get_one(checkout: Path) -> None:
    done = _setup(checkout)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "3.11" in lines[0]
    assert "uv python install 3.11" in lines[1]
    assert not (checkout / ".venv").exists()


def test_setup_in_a_read_only_checkout_says_so(checkout: Path) -> None:
    (checkout / "tools").chmod(0o555)
    checkout.chmod(0o555)
    # Root may write anywhere unless that right is taken away.
    bounds = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override"]
    if bounds and not shutil.which("setpriv"):
        pytest.skip("root without setpriv can write anywhere")
    done = subprocess.run(
        [*bounds, "bash", str(checkout / "tools" / "setup.sh")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    checkout.chmod(0o755)
    assert done.returncode == 2
    assert "cannot be written to" in done.stderr
    assert not (checkout / ".venv").exists()


def test_setup_passes_by_a_python_that_refuses(checkout: Path) -> None:
    """A pyenv shim stands on PATH whether or not it has a 3.11 to run."""
    shim = checkout / "bin" / "python3.11"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    done = _setup(checkout, "--python")
    assert (done.returncode, done.stdout) == (2, "")


def test_setup_takes_no_other_version(checkout: Path) -> None:
    other = next((one for one in candidates("3.12") if works(one, "3.12")), None)
    if other is None:
        pytest.skip("there is no Python 3.12 here")
    done = _setup(checkout, "--python", PYTHON=other)
    assert (done.returncode, done.stdout) == (2, "")


def test_setup_takes_the_python_it_is_given(checkout: Path) -> None:
    done = _setup(checkout, "--python", PYTHON=sys.executable)
    assert (done.returncode, done.stdout.strip()) == (0, sys.executable)


def test_setup_does_not_build_with_what_it_deletes(checkout: Path) -> None:
    """An activated .venv stands first on PATH."""
    own = checkout / ".venv" / "bin" / "python3.11"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    path = f"{own.parent}:{Path(sys.base_prefix) / 'bin'}"
    found = Path(_setup(checkout, "--python", PATH=path).stdout.strip())
    assert found.parent == Path(sys.base_prefix) / "bin"
    assert _setup(checkout, "--python", PATH=str(own.parent)).returncode == 2


def test_setup_finds_the_python_of_pyenv(checkout: Path) -> None:
    python = checkout / "home" / ".pyenv" / "versions" / "3.11.7" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert _setup(checkout, "--python").stdout.strip() == str(python)


def test_setup_on_windows_points_to_wsl(checkout: Path) -> None:
    done = _setup(checkout, OSTYPE="msys", PYTHON=sys.executable)
    assert done.returncode == 2
    assert "DeepSparse is for Linux only" in done.stderr
    assert "WSL" in done.stderr


def test_setup_on_macos_says_what_is_missing_there(checkout: Path) -> None:
    done = _setup(checkout, OSTYPE="darwin22")
    assert "DeepSparse is for Linux only" in done.stdout


def test_setup_refuses_an_intel_mac(checkout: Path) -> None:
    """Told by the Python that would build it, for which a terminal may be under Rosetta."""
    python = checkout / "python"
    site = checkout / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import platform\nplatform.system = lambda: 'Darwin'\nplatform.machine = lambda: 'x86_64'\n"
    )
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = _setup(checkout, OSTYPE="darwin22", PYTHON=str(python))
    assert done.returncode == 2
    assert "there is no PyTorch of today for Intel Macs" in done.stderr
    assert not (checkout / ".venv").exists()


def test_setup_does_nothing_for_a_whole_venv(checkout: Path) -> None:
    _fake_venv(checkout, stamped=True)
    done = _setup(checkout, tools=("cat",))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_setup_tells_whether_there_is_anything_to_build(checkout: Path) -> None:
    assert _setup(checkout, "--built", PYTHON=sys.executable).returncode == 1
    assert not (checkout / ".venv").exists()
    _fake_venv(checkout, stamped=True)
    assert _setup(checkout, "--built", tools=("cat",)).returncode == 0


@pytest.mark.parametrize("damage", ["no stamp", "lock changed"])
def test_setup_does_not_trust_a_half_built_or_old_venv(checkout: Path, damage: str) -> None:
    """Without a Python to build with it must say so, instead of passing the venv for good."""
    _fake_venv(checkout, stamped=damage != "no stamp")
    if damage == "lock changed":
        (checkout / "requirements.lock").write_text("changed")
    assert _setup(checkout, tools=("cat",)).returncode == 2


def _fake_venv(checkout: Path, stamped: bool) -> None:
    """Make a .venv as the set-up leaves it, as far as its check looks."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    if not stamped:
        return
    program = "import hashlib, os, sys\n" + (
        "print(hashlib.sha256(open('requirements.lock', 'rb').read()).hexdigest())\n"
        "print(os.getcwd())"
    )
    stamp = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout
    (checkout / ".venv" / "lock.stamp").write_text(stamp)
