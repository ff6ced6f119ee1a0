"""The doctor names what is broken: real processes, beside packages that really shadow ours."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import doctor, environment
from helpers.environment import REPOSITORY


def run(python: str = sys.executable, **variables: str) -> tuple[int, list[dict[str, str]]]:
    """Run the doctor in a process of its own; return its exit code and what it found."""
    done = subprocess.run(
        [python, "-m", "helpers", "doctor", "--json"],
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["ok"] == (done.returncode == 0)
    return done.returncode, report["findings"]


def said(findings: list[dict[str, str]], status: str) -> str:
    return " | ".join(f"{f['what']} -> {f['mend']}" for f in findings if f["status"] == status)


def shadow(folder: Path, name: str, version: str, module: str = "", code: str = "") -> Path:
    """Put another version of a package in front of ours, as a careless `pip install` would."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if module:
        (folder / module).mkdir()
        (folder / module / "__init__.py").write_text(code)
    return folder


def test_here_everything_is_in_order() -> None:
    code, findings = run()
    assert (code, said(findings, "FAIL")) == (0, "")
    assert "all as in requirements.lock" in said(findings, "OK")
    assert "end of life on 2 June 2025" in said(findings, "WARN")
    assert all(f["mend"] for f in findings if f["status"] != "OK"), "each has a mend"


@pytest.mark.parametrize(
    ("name", "version", "module", "code", "symptom"),
    [
        ("setuptools", "82.0", "pkg_resources", "raise ModuleNotFoundError(__name__)", "pkg_res"),
        ("sparseml", "1.9.0", "sparseml", "print('end of life')", "1.9.0 is a stub"),
        ("pyarrow", "24.0", "pyarrow", "raise ImportError('needs NumPy 2')", "pyarrow requires"),
        (
            "compressed-tensors",
            "0.15.0",
            "compressed_tensors",
            "import transformers.masking_utils",
            "transformers.masking_utils",
        ),
    ],
)
def test_a_package_that_is_known_to_break_it_is_named(
    name: str, version: str, module: str, code: str, symptom: str, tmp_path: Path
) -> None:
    folder = shadow(tmp_path / "site", name, version, module, code)
    result, findings = run(PYTHONPATH=str(folder))
    failed = said(findings, "FAIL")
    assert result == 1
    assert f"{name} is {version}, not " in failed and symptom in failed
    assert "imports: " in failed, "and it was tried"


def test_files_that_are_missing_beside_right_versions(tmp_path: Path) -> None:
    broken = tmp_path / "deepsparse"
    broken.mkdir()
    (broken / "__init__.py").write_text("from deepsparse.engine import Engine\n")
    code, findings = run(PYTHONPATH=str(tmp_path))
    assert code == 1
    assert "No module named 'deepsparse.engine'" in said(findings, "FAIL")
    assert "all as in requirements.lock" in said(findings, "OK")


def test_a_python_without_any_package(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    code, findings = run(str(tmp_path / "bare" / "bin" / "python"), PYTHONPATH="")
    failed = said(findings, "FAIL")
    assert code == 1
    assert "the lock cannot be read" in failed and "Jupyter: No module named" in failed
    assert "Take .venv/bin/python" in failed or "make setup" in failed


def is_another(python: str) -> bool:
    """Tell whether a command is a Python that runs, and not 3.11."""
    code = "import sys; sys.exit(sys.version_info[:2] == (3, 11) or sys.version_info < (3, 9))"
    found = subprocess.run([python, "-c", code], capture_output=True, check=False)
    return found.returncode == 0


def test_another_python_is_the_first_thing_it_says() -> None:
    homes = Path.home().glob(".pyenv/versions/*/bin/python")
    names = [shutil.which(name) for name in ("python3.12", "python3.13", "python3.10", "python3")]
    other = next(
        (name for name in map(str, [*homes, *filter(None, names)]) if is_another(name)), ""
    )
    if not other:
        pytest.skip("there is no other Python here")
    code, findings = run(other, PYTHONPATH="")
    assert code == 1
    assert findings[0]["status"] == "FAIL"
    assert "need Python 3.11" in findings[0]["mend"]


def test_a_kernel_of_another_python(tmp_path: Path) -> None:
    place = tmp_path / "kernels" / doctor.KERNEL
    place.mkdir(parents=True)
    spec = {"argv": ["/usr/bin/env", "x"], "display_name": "other", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(spec))
    code, findings = run(JUPYTER_PATH=str(tmp_path), JUPYTER_DATA_DIR=str(tmp_path))
    assert code == 0
    assert "is another Python than this" in said(findings, "WARN")


def test_a_cpu_without_vnni_and_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {**environment.machine(), "vnni": False, "amx": False, "avx512": False}
    monkeypatch.setattr(environment, "machine", lambda: old)
    assert "neither AVX-512 nor VNNI" in next(doctor.processor()).what
    monkeypatch.setattr(doctor, "DISK_NEEDED", 2**40)
    disk = next(doctor.memory_and_disk())
    assert disk.status == "FAIL" and "TUTORIAL_RUNS" in disk.mend


def test_a_read_only_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path / "runs"))
    # Root may write anywhere, so that a folder's permissions would stop nobody here.
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    disk = next(doctor.memory_and_disk())
    assert disk.status == "FAIL" and "read-only" in disk.what and "TUTORIAL_RUNS" in disk.mend


def test_a_file_where_runs_should_be_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path / "file"))
    (found,) = [finding for finding in doctor.problems() if "disk" in finding.what]
    assert found.status == "FAIL" and "names a file" in found.mend


def test_the_first_cell_of_a_notebook_says_what_is_not_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(environment.banner().splitlines()) == 3
    monkeypatch.setattr(doctor, "MEMORY_NEEDED", 2**20)
    assert "[WARN] memory: " in environment.banner().splitlines()[-1]


def test_wrong_flags(capsys: pytest.CaptureFixture) -> None:
    assert doctor.main(["--nonsense"]) == 2
    assert "--nonsense is unknown" in capsys.readouterr().err
    assert doctor.main(["--help"]) == 0
