"""The first cell: which Python it takes, builds or fetches, and what it says where it cannot."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import any_kernel
import first_cell
import nbformat
import pytest
from any_kernel import NoKernelError
from kernels import ROOT, VERSIONS, other_python, started
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NOTEBOOKS = ROOT / "notebooks"
BOOTSTRAP = ("any_kernel.py", "kernel_bridge.py", "second_kernel.py")
OURS = {Path(name).stem for name in BOOTSTRAP}
UNSET = {"TUTORIAL_PYTHON": "", "TUTORIAL_REPOSITORY": "", "TUTORIAL_ANY_VERSIONS": ""}
# What the set-up does in a repository of our own: it needs a moment, and can fail half-way.
SETUP = """
PYTHON=${PYTHON:-$OUR_PYTHON}
case "${1:-}" in
    --built) [ -e .venv/whole ]; exit ;;
    --python) echo "$PYTHON"; exit ;;
esac
echo "1/2 begun"; echo begun >>builds; mkdir -p .venv/bin; sleep 1
[ ! -e broken ] || { echo "no network"; exit 1; }
printf '#!/bin/sh\nexec "%s" "$@"' "$PYTHON" >.venv/bin/python; chmod +x .venv/bin/python
touch .venv/whole; echo "2/2 done"
"""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the choice of the Python to the code."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OUR_PYTHON", sys.executable)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with the bootstrap, and a set-up that takes a second."""
    folder = tmp_path / "the repository"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "tools").mkdir()
    for name in BOOTSTRAP:
        (folder / "notebooks" / name).write_text((NOTEBOOKS / name).read_text())
    (folder / "tools" / "setup.sh").write_text(SETUP)
    (folder / "requirements.lock").write_text("# none")
    return folder


@pytest.mark.parametrize("name", BOOTSTRAP)
@pytest.mark.parametrize("minor", range(8, 12))  # ours reads nothing newer
def test_other_pythons_can_read_it(name: str, minor: int) -> None:
    ast.parse((NOTEBOOKS / name).read_text(), feature_version=(3, minor))


@pytest.mark.parametrize("name", BOOTSTRAP)
def test_it_needs_only_what_a_kernel_brings(name: str) -> None:
    tree = ast.parse((NOTEBOOKS / name).read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imports}
    packages = {str(module).split(".")[0] for module in modules} - set(sys.stdlib_module_names)
    assert packages <= {"IPython", "ipykernel", "jupyter_client", "zmq"} | OURS


def test_without_a_notebook_nothing_happens() -> None:
    done = subprocess.run(
        [other_python(VERSIONS[0]), "-c", "import any_kernel"],
        cwd=NOTEBOOKS,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_on_the_right_kernel_nothing_happens() -> None:
    with started(Path(sys.executable), NOTEBOOKS, **UNSET) as kernel:
        cell = kernel.run("import any_kernel")
        assert [m["msg_type"] for m in cell.messages] == ["status", "execute_input", "status"]
        there = "import sys\n'kernel_bridge' in sys.modules, get_ipython().kernel.do_execute"
        assert "False" in kernel.run(there).value
        assert "IPythonKernel.do_execute" in kernel.run(there).value


def test_a_python_fits_by_version_and_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any_kernel.fits(ROOT)
    monkeypatch.setattr(any_kernel.metadata, "version", lambda name: "0.1")
    assert not any_kernel.fits(ROOT)
    monkeypatch.setenv("TUTORIAL_ANY_VERSIONS", "1")
    assert any_kernel.fits(ROOT)
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert not any_kernel.fits(ROOT)


def test_a_python_without_the_packages_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_kernel, "TELLING_PACKAGES", ("no-such-package",))
    assert not any_kernel.fits(ROOT)


def test_the_environment_is_built_once_and_its_progress_shown(repository: Path) -> None:
    python = other_python(VERSIONS[0])
    for builds in (1, 0):
        with started(python, repository / "notebooks", **UNSET) as kernel:
            cell = kernel.run("import any_kernel")
            assert cell.reply["status"] == "ok", cell.of("error")
            shown = [c["data"]["text/plain"] for c in cell.of("update_display_data")]
            assert bool(shown) == bool(builds)
            assert not builds or "1/2 begun\n[0:" in shown[0]
            assert not builds or "2/2 done\n[0:0" in shown[-1]
            assert kernel.run("import sys\nsys.version_info[:2]").value == "(3, 11)"
    assert (repository / "builds").read_text() == "begun\n"


def test_two_notebooks_at_once_build_one_environment(repository: Path) -> None:
    folder = repository / "notebooks"
    with started(other_python(VERSIONS[0]), folder, **UNSET) as first:
        with started(other_python(VERSIONS[1]), folder, **UNSET) as second:
            first.client.execute("import any_kernel")
            time.sleep(0.3)
            cell = second.run("import any_kernel")
            assert cell.reply["status"] == "ok", cell.of("error")
        assert first.run("import sys\nsys.version_info[:2]").value == "(3, 11)"
    assert (repository / "builds").read_text() == "begun\n"


def test_a_failed_build_is_said_and_the_next_begins_anew(repository: Path) -> None:
    (repository / "broken").touch()
    with started(other_python(VERSIONS[0]), repository / "notebooks", **UNSET) as kernel:
        cell = kernel.run("import any_kernel")
        assert "no network" in cell.of("update_display_data")[-1]["data"]["text/plain"]
        (error,) = cell.of("error")
        assert "the set-up did not finish" in "".join(error["traceback"])
        assert len(error["traceback"]) == 1, "no traceback for the reader to dig through"
        (repository / "broken").unlink()
        assert kernel.run("import any_kernel").reply["status"] == "ok"
        assert kernel.run("import sys\nsys.version_info[:2]").value == "(3, 11)"


def test_an_interrupted_build_ends(repository: Path) -> None:
    setup = repository / "tools" / "setup.sh"
    setup.write_text(SETUP.replace("sleep 1", "echo $$ >process; sleep 60"))
    with started(other_python(VERSIONS[0]), repository / "notebooks", **UNSET) as kernel:

        def interrupt(message: dict) -> None:
            if message["msg_type"] == "update_display_data":
                kernel.manager.interrupt_kernel()

        cell = kernel.run("import any_kernel", seen=interrupt)
    assert cell.reply["ename"] == "KeyboardInterrupt"
    assert not Path("/proc", (repository / "process").read_text().strip()).exists()


def test_the_real_set_up_tells_what_is_built(repository: Path) -> None:
    (repository / "tools" / "setup.sh").write_text((ROOT / "tools" / "setup.sh").read_text())
    assert not any_kernel.is_built(repository)
    (repository / ".venv" / "bin").mkdir(parents=True)
    (repository / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert not any_kernel.is_built(repository), "half-built"
    stamp = "import hashlib, os\nprint(hashlib.sha256(b'# none').hexdigest())\nprint(os.getcwd())"
    made = subprocess.run([sys.executable, "-c", stamp], cwd=repository, capture_output=True)
    (repository / ".venv" / "lock.stamp").write_bytes(made.stdout)
    assert any_kernel.is_built(repository)
    assert any_kernel.find_python(repository) == repository / ".venv" / "bin" / "python"


def test_a_read_only_checkout_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_kernel.os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(NoKernelError, match="cannot be written to.*TUTORIAL_PYTHON"):
        any_kernel.find_python(repository)
    assert not (repository / "builds").exists()


def test_windows_is_pointed_to_wsl(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(NoKernelError, match="Windows Subsystem for Linux"):
        any_kernel.find_python(repository)


def test_uv_gets_a_python_where_there_is_none(repository: Path) -> None:
    """The uv here only says what it was asked: a real one would download a Python."""
    setup = SETUP.replace('echo "$PYTHON"; exit', "echo none here; exit 2")
    (repository / "tools" / "setup.sh").write_text(setup)
    uv = repository / "bin" / "uv"
    uv.parent.mkdir()
    found = f'printf "warning: old\\n%s\\n" "{sys.executable}"'
    uv.write_text(f'#!/bin/sh\necho "$2" >>asked; [ "$2" != find ] || {found}\n')
    uv.chmod(0o755)
    path = {"PATH": f"{uv.parent}:{os.environ['PATH']}", "OUR_PYTHON": ""}
    folder = repository / "notebooks"
    with started(other_python(VERSIONS[0]), folder, **UNSET, **path) as kernel:
        assert "Getting one with uv" in kernel.run("import any_kernel").text()
        assert kernel.run("import sys\nsys.executable").value == repr(sys.executable)
    assert (folder / "asked").read_text() == "install\nfind\n"


def test_where_uv_fails_the_reader_gets_advice(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = repository / "uv"
    uv.write_text("#!/bin/sh\necho no route to host; exit 1\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{repository}:{os.environ['PATH']}")
    with pytest.raises(NoKernelError, match=r"(?s)no route to host.*pyenv install"):
        any_kernel.python_by_uv("Get one: pyenv install 3.11")


def test_a_named_python_has_to_be_there(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUTORIAL_PYTHON", str(tmp_path / "none"))
    with pytest.raises(NoKernelError, match="no such program"):
        any_kernel.find_python(repository)
    monkeypatch.setenv("TUTORIAL_PYTHON", sys.executable)
    assert any_kernel.find_python(repository) == Path(sys.executable)


@pytest.mark.parametrize("name", ["another", "ls"])
def test_a_program_that_is_no_python_311_is_refused(
    name: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = str(other_python(VERSIONS[0])) if name == "another" else "ls"
    monkeypatch.setenv("TUTORIAL_PYTHON", chosen)
    found = f"Python {VERSIONS[0]}" if name == "another" else "something else"
    with pytest.raises(NoKernelError, match=f"expected Python 3.11, it is {found}"):
        any_kernel.find_python(repository)


def test_a_python_without_ipykernel_says_so(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    variables = {**UNSET, "TUTORIAL_PYTHON": str(bare / "bin" / "python")}
    with started(other_python(VERSIONS[0]), NOTEBOOKS, **variables) as kernel:
        (error,) = kernel.run("import any_kernel").of("error")
        assert "TUTORIAL_PYTHON" in error["traceback"][0]
        assert "has no ipykernel" in error["traceback"][0]
        assert kernel.run("import sys\nsys.version_info[:2]").value == "(3, 12)"


@pytest.fixture
def remote(repository: Path) -> str:
    """Return the address of a repository that can be cloned."""
    options = ["-c", "user.name=reader", "-c", "user.email=reader@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "All"]):
        subprocess.run(["git", *options, *command], cwd=repository, check=True)
    return repository.as_uri()


def test_opened_alone_it_fetches_the_repository(tmp_path: Path, remote: str) -> None:
    """As in Colab: a folder with the one file that the notebook's first cell has fetched."""
    alone = tmp_path / "content"
    alone.mkdir()
    (alone / "any_kernel.py").write_text((NOTEBOOKS / "any_kernel.py").read_text())
    variables = {**UNSET, "TUTORIAL_REPOSITORY": remote}
    with started(other_python(VERSIONS[0]), alone, **variables) as kernel:
        cell = kernel.run("import any_kernel")
        assert cell.reply["status"] == "ok", cell.of("error")
        assert f"Fetching the tutorial from {remote}" in cell.text()
        fetched = alone / any_kernel.FETCHED
        assert kernel.run("import os\nos.getcwd()").value == repr(str(fetched / "notebooks"))
    with started(other_python(VERSIONS[0]), alone, **UNSET) as kernel:
        cell = kernel.run("import any_kernel")
        assert (cell.reply["status"], "Fetching" in cell.text()) == ("ok", False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "TUTORIAL_REPOSITORY"),
        ("file:///no/such/repository", "could not be fetched"),
        ("file://{stranger}", "or is not the tutorial"),
    ],
)
def test_what_cannot_be_fetched_is_said(
    url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "stranger")], check=True)
    monkeypatch.setattr(any_kernel, "REPOSITORY_URL", url.format(stranger=tmp_path / "stranger"))
    with pytest.raises(NoKernelError, match=said):
        any_kernel.fetch(tmp_path / "fetched")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stranger"]


def test_what_belongs_to_this_python_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/packages/of/another/python")
    monkeypatch.setenv("KEPT", "1")
    passed = any_kernel.environment(MORE="2")
    assert "PYTHONPATH" not in passed
    assert (passed["KEPT"], passed["MORE"]) == ("1", "2")


def test_the_first_cell_is_written_once() -> None:
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_markdown_cell("Contents")])
    notebook.cells.append(new_code_cell("print(1)", id="01-02"))
    assert first_cell.place(notebook, first_cell.source(""))
    assert not first_cell.place(notebook, first_cell.source(""))
    assert [cell.source for cell in notebook.cells[2:]] == [first_cell.LINE, "print(1)"]
    nbformat.validate(notebook)


def test_a_new_address_is_written_into_the_first_cell(tmp_path: Path) -> None:
    """The cell fetches the bootstrap by that address, and does not where the file is there."""
    served = tmp_path / "served" / "raw" / "HEAD" / "notebooks" / "any_kernel.py"
    served.parent.mkdir(parents=True)
    served.write_text("print('imported')")
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_markdown_cell("Contents")])
    notebook.cells.append(new_code_cell(first_cell.LINE))
    code = first_cell.source((tmp_path / "served").as_uri())
    assert first_cell.place(notebook, code)
    assert [cell.source for cell in notebook.cells[2:]] == [code]
    for said in ("imported", "mine"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.stdout.strip() == said, done.stderr
        (tmp_path / "any_kernel.py").write_text("print('mine')")
