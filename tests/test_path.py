"""The stops on the path: one that stands on what is no longer there is not shown as if it did."""

import shutil
from pathlib import Path

import pytest

from helpers import path, tiers
from helpers.errors import UserError
from helpers.path import Step
from helpers.stops import Checkpoint
from helpers.tasks import Task


@pytest.fixture
def stored(pruned: Checkpoint, dense: Checkpoint, tmp_path: Path) -> Checkpoint:
    """Return a pruned stop beside the dense one that it was made from."""
    shutil.copytree(dense.folder, tmp_path / "dense")
    return Checkpoint.load(shutil.copytree(pruned.folder, tmp_path / "prune80"))


def test_a_stop_whose_start_is_there_is_shown(stored: Checkpoint, tiny_task: Task) -> None:
    path.check_origin(stored, path.STEPS["prune80"], tiny_task)


def test_a_start_that_was_made_anew_is_noticed(
    stored: Checkpoint, sparse_int8: Checkpoint, tiny_task: Task
) -> None:
    place = stored.folder.with_name("dense")
    shutil.rmtree(place)
    shutil.copytree(sparse_int8.folder, place)
    with pytest.raises(UserError, match=r"trained on other start \(dense\) than there is now"):
        path.check_origin(stored, path.STEPS["prune80"], tiny_task)


def test_a_teacher_that_was_made_anew_is_noticed(
    pruned: Checkpoint, sparse_int8: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    stop = Checkpoint.load(shutil.copytree(sparse_int8.folder, tmp_path / "stop"))
    shutil.copytree(pruned.folder, tmp_path / "dense")
    with pytest.raises(UserError, match=r"other start \(dense\) and teacher \(dense\) than"):
        path.check_origin(stop, path.STEPS["prune90_quant_distill"], tiny_task)


def test_other_data_is_noticed(stored: Checkpoint, tiny_task: Task) -> None:
    fewer = tiny_task.shortened(8, None)
    with pytest.raises(UserError, match="trained on other data than there is now"):
        path.check_origin(stored, path.STEPS["prune80"], fewer)


def test_a_sparse_encoder_that_was_made_anew_is_noticed(
    stored: Checkpoint,
    dense: Checkpoint,
    sparse_int8: Checkpoint,
    tiny_task: Task,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever texts it read: only if none of the encoders that are there was the start."""
    monkeypatch.setenv("TUTORIAL_RUNS", str(stored.folder.with_name("runs")))
    step = Step("upstream80", "07_sparse_transfer", "minilm-6layers_transfer")
    path.check_origin(stored, step, tiny_task)
    place = path.upstream_folder()
    assert place.name == tiers.current().name
    shutil.copytree(sparse_int8.folder, place / "other-texts" / "upstream80")
    with pytest.raises(UserError, match=r"other start \(upstream80\)"):
        path.check_origin(stored, step, tiny_task)
    shutil.copytree(dense.folder, place / "texts" / "upstream80")
    path.check_origin(stored, step, tiny_task)
