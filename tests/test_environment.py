"""Environment and tiers: an unfit machine is refused, and every number is described."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import corpus, environment, tiers
from helpers.errors import UserError


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 12, 1), (3, 13, 0)])
def test_another_python_is_refused(
    version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.check_python()
    monkeypatch.setattr(sys, "version_info", version)
    found = re.escape(".".join(map(str, version)))
    with pytest.raises(UserError, match=f"This is Python {found};.*3.11.*make setup"):
        environment.check_python()


def test_another_platform_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "sys", SimpleNamespace(platform="win32"))
    with pytest.raises(UserError, match="This is Windows"):
        environment.check_python()


def test_the_lock_is_read(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(
        "# torch==0.1\n--index-url https://example.org/a==b\n"
        "Torch==2.13.0 ; python_version < '4' \\\n    --hash=sha256:aa==\nonnx==1.14.1\n"
        "pywin32==1 ; sys_platform == 'win32'\n"
    )
    assert environment.locked_versions(tmp_path / "lock") == {"torch": "2.13.0", "onnx": "1.14.1"}


def test_packages_that_differ_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTORIAL_ANY_VERSIONS", raising=False)
    numpy = environment.package_version("numpy")
    locked = {"numpy": "0.1", "torch": "0.2", "unheard-of": "1.0"}
    assert environment.differing_packages(locked)["numpy"] == ("0.1", numpy)
    monkeypatch.setattr(environment, "locked_versions", lambda: locked)
    with pytest.raises(UserError, match=f"numpy is {numpy}, not 0.1.*make setup"):
        environment.check_packages()
    monkeypatch.setenv("TUTORIAL_ANY_VERSIONS", "1")
    environment.check_packages()


def test_a_missing_package_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "package_version", lambda name: "absent")
    locked = {"no-such-package": "1.0", "deepsparse": "1.8.0"}
    assert set(environment.differing_packages(locked)) == set(locked)


def test_a_build_tag_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "package_version", lambda name: "2.13.0+cpu")
    assert environment.differing_packages({"torch": "2.13.0"}) == {}


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    environment.check_disk(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(UserError, match="No space for run: .* needed, .* free.*TUTORIAL_RUNS"):
        environment.check_disk(tmp_path / "run", 2**60)


def test_the_machine_is_described() -> None:
    machine = environment.machine()
    assert machine["cores"] >= 1
    assert machine["memory_gb"] >= 1
    assert machine["cpu"]
    assert all(isinstance(machine[key], bool) for key in ("avx512", "vnni", "bf16", "amx"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says about the CPU")
def test_the_instructions_are_those_the_kernel_names() -> None:
    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split())
    machine = environment.machine()
    assert machine["avx512"] == ("avx512f" in flags)
    assert machine["vnni"] == bool(flags & {"avx512_vnni", "avx_vnni"})
    assert machine["bf16"] == bool(flags & {"avx512_bf16", "amx_bf16"})


def test_every_number_gets_python_packages_and_machine() -> None:
    described = environment.describe()
    assert described["python"].startswith("3.11")
    assert described["versions"]["sparseml"] == "1.8.0"
    assert described["machine"] == environment.machine()


def test_the_banner_names_size_and_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_TIER", "smoke")
    assert environment.machine()["cpu"] in environment.banner()
    assert "smoke" in environment.banner()


def test_runs_lie_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path))
    assert environment.runs_folder() == tmp_path.resolve()
    monkeypatch.delenv("TUTORIAL_RUNS")
    assert environment.runs_folder() == environment.REPOSITORY / "runs"


def test_runs_that_cannot_be_made_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Root may write anywhere, so that a folder's permissions would stop nobody here.
    monkeypatch.setattr(environment.os, "access", lambda path, mode: False)
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path / "a" / "b"))
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written to. Set TUTORIAL_RUNS"):
        corpus.docs_library(environment.runs_folder())
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path))
    assert environment.runs_folder() == tmp_path.resolve(), "what is there can be read"


def test_a_half_built_environment_is_to_be_finished(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    (tmp_path / ".venv").mkdir()
    assert environment.right_packages() == "Run `make setup`."
    (tmp_path / ".venv" / "lock.stamp").touch()
    assert environment.right_packages().startswith("Take .venv/bin/python")


def test_an_unknown_tier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_TIER", "huge")
    with pytest.raises(UserError, match="TUTORIAL_TIER is 'huge'.*smoke, laptop, full"):
        tiers.current()
    monkeypatch.delenv("TUTORIAL_TIER")
    assert tiers.current().name == "laptop"


def test_tiers_grow_and_prove_on_enough_rows() -> None:
    smoke, laptop, full = tiers.TIERS.values()
    assert smoke.train_examples < laptop.train_examples
    assert full.train_examples is None
    assert full.validation_examples is None
    assert all(tier.proof_examples >= 200 for tier in tiers.TIERS.values())
    assert smoke.validation_examples >= 200, "an export is proven on at least 200 rows"


def test_questions_have_a_size_for_every_tier() -> None:
    assert tiers.QUESTIONS.keys() == tiers.TIERS.keys()
    smoke, laptop, full = tiers.QUESTIONS.values()
    assert smoke.train_examples < laptop.train_examples
    assert full.data["max_train_samples"] is None
    assert all(sizes.doc_stride < sizes.max_seq_length / 2 for sizes in tiers.QUESTIONS.values())
