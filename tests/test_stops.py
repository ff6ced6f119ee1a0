"""Stops: a folder is whole or absent, and a damaged one is not opened."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from helpers import stops
from helpers.environment import REPOSITORY
from helpers.errors import ProofError, UserError
from helpers.stops import Checkpoint, OnnxModel, writing

WRITER = """
import sys, time
from pathlib import Path
from helpers.stops import writing
with writing(Path(sys.argv[1])) as folder:
    (folder / "model.safetensors").write_text("half")
    (folder / "run.json").write_text('{"files": {}}')
    print("writing", flush=True)
    time.sleep(120)
"""


def write_stop(folder: Path, content: str = "weights", *, overwrite: bool = False) -> None:
    """Write a finished stop of one file and its note."""
    with writing(folder, overwrite=overwrite) as scratch:
        (scratch / "model.safetensors").write_text(content)
        stops.write_note(scratch, "run.json", {"metrics": {"accuracy": 0.5}})


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Start a real process that is in the middle of writing the folder `run`."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "writing\n"
        yield child
        child.kill()


def test_a_stop_appears_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    with writing(folder) as scratch:
        (scratch / "model.safetensors").write_text("weights")
        stops.write_note(scratch, "run.json", {"metrics": {"accuracy": 0.5}})
        assert not folder.exists(), "nothing is there before everything is there"
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "run.json"}
    assert [child.name for child in folder.parent.iterdir()] == ["run"]
    opened = Checkpoint.load(folder)
    assert (opened.name, opened.metrics, opened.recipe_file) == ("run", {"accuracy": 0.5}, None)


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"), writing(tmp_path / "run") as scratch:
        (scratch / "model.safetensors").write_text("half")
        raise RuntimeError("boom")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_checkpoints_outlive_what_is_not_the_runs_fault(
    error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), writing(tmp_path / "run") as scratch:
        (scratch / "checkpoint-4").mkdir()
        raise error
    assert [left.name for left in tmp_path.iterdir()] == [".run.partial"]


def test_checkpoints_of_a_run_that_failed_its_proof_go(tmp_path: Path) -> None:
    with pytest.raises(ProofError), writing(tmp_path / "run") as scratch:
        (scratch / "checkpoint-4").mkdir()
        raise ProofError("zeros", 80, 40, "Report it.")
    assert not any(tmp_path.iterdir())


def test_an_exception_leaves_the_stop_that_was_to_be_replaced(tmp_path: Path) -> None:
    write_stop(tmp_path / "run", "old")
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "run", overwrite=True):
        raise KeyboardInterrupt
    Checkpoint.load(tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_text() == "old"


def test_a_killed_writer_leaves_nothing_finished(writer: subprocess.Popen, tmp_path: Path) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.wait(timeout=30)
    assert [child.name for child in tmp_path.iterdir()] == [".run.partial"]
    with pytest.raises(UserError, match="not a finished stop"):
        Checkpoint.load(tmp_path / "run")
    write_stop(tmp_path / "run")
    assert [child.name for child in tmp_path.iterdir()] == ["run"]
    Checkpoint.load(tmp_path / "run")


def test_another_living_writer_is_refused(writer: subprocess.Popen, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"Process {writer.pid} is writing {tmp_path / 'run'} "):
        write_stop(tmp_path / "run")
    partial = tmp_path / ".run.partial" / "model.safetensors"
    assert partial.read_text() == "half", "the other one's files are left alone"


def test_a_number_that_another_process_got_later_is_no_writer(
    writer: subprocess.Popen, tmp_path: Path
) -> None:
    """After a restart of the machine the number of a killed writer may be anybody's."""
    note = tmp_path / ".run.partial" / "writer.pid"
    before_it_started = psutil.Process(writer.pid).create_time() - 60
    os.utime(note, (before_it_started, before_it_started))
    write_stop(tmp_path / "run")
    Checkpoint.load(tmp_path / "run")


def test_a_writer_killed_before_it_signed_is_cleaned_up(tmp_path: Path) -> None:
    (tmp_path / ".run.partial").mkdir()
    (tmp_path / ".run.partial" / "writer.pid").touch()
    write_stop(tmp_path / "run")
    assert [child.name for child in tmp_path.iterdir()] == ["run"]


def test_an_occupied_folder_is_refused_and_kept(tmp_path: Path) -> None:
    write_stop(tmp_path / "run", "old")
    with pytest.raises(UserError, match="already holds something.*overwrite_output_dir"):
        write_stop(tmp_path / "run", "new")
    assert (tmp_path / "run" / "model.safetensors").read_text() == "old"


def test_an_earlier_stop_is_overwritten_when_asked(tmp_path: Path) -> None:
    write_stop(tmp_path / "run", "old")
    write_stop(tmp_path / "run", "new", overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").read_text() == "new"


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_stop(tmp_path / "run")
    Checkpoint.load(tmp_path / "run")


def test_a_folder_of_somebody_elses_files_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="no run of this tutorial wrote"):
        write_stop(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "run").write_text("taken")
    with pytest.raises(UserError, match="is a file"):
        write_stop(tmp_path / "run", overwrite=overwrite)
    assert (tmp_path / "run").read_text() == "taken"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="No folder can be made"):
        write_stop(tmp_path / "file" / "run")


def test_folders_inside_a_stop_do_not_spoil_its_note(tmp_path: Path) -> None:
    with writing(tmp_path / "run") as scratch:
        (scratch / "checkpoint-10").mkdir()
        (scratch / "model.safetensors").write_text("weights")
        stops.write_note(scratch, "run.json", {})
    assert set(Checkpoint.load(tmp_path / "run").run["files"]) == {"model.safetensors"}


def truncate(file: Path) -> None:
    """Cut a file in half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def edit(file: Path) -> None:
    """Change one byte and nothing of the length."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, edit, Path.unlink])
@pytest.mark.parametrize("kind", [(Checkpoint, "run.json"), (OnnxModel, "proof.json")])
def test_damage_is_noticed(damage: object, kind: tuple[type, str], tmp_path: Path) -> None:
    opener, note = kind
    with writing(tmp_path / "stop") as scratch:
        (scratch / "model").write_text("weights")
        stops.write_note(scratch, note, {})
    opener.load(tmp_path / "stop")
    damage(tmp_path / "stop" / "model")
    with pytest.raises(UserError, match="model is missing, truncated or was changed"):
        opener.load(tmp_path / "stop")


@pytest.mark.parametrize("content", ["", '{"files": {"a', "[]", "{}", '{"files": []}'])
def test_a_damaged_note_is_noticed(content: str, tmp_path: Path) -> None:
    write_stop(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(UserError, match="run.json was damaged"):
        Checkpoint.load(tmp_path / "run")


def test_no_folder_is_no_stop(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished stop: proof.json is missing"):
        OnnxModel.load(tmp_path / "nowhere")


def test_a_note_that_was_edited_is_not_believed(tmp_path: Path) -> None:
    with stops.writing(tmp_path / "run") as folder:
        stops.write_note(folder, "run.json", {"metrics": {"accuracy": 0.5}, "pair": (1, 2)})
    assert stops.read_note(tmp_path / "run", "run.json")["metrics"] == {"accuracy": 0.5}
    file = tmp_path / "run" / "run.json"
    file.write_text(file.read_text().replace("0.5", "0.99"))
    with pytest.raises(UserError, match="run.json was changed after the run ended"):
        stops.read_note(tmp_path / "run", "run.json")


@pytest.mark.parametrize("text", ["abc", "", "-1"])
def test_what_a_killed_run_left_may_be_damaged(tmp_path: Path, text: str) -> None:
    partial = stops.partial_folder(tmp_path / "run")
    partial.mkdir()
    (partial / "writer.pid").write_text(text)
    with stops.writing(tmp_path / "run") as folder:
        (folder / "x").touch()
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["x"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    stops.partial_folder(tmp_path / "run").touch()
    with (
        pytest.raises(UserError, match="is a file, and in the way"),
        stops.writing(tmp_path / "run"),
    ):
        raise AssertionError


def test_work_that_fails_leaves_no_empty_folder(tmp_path: Path) -> None:
    for written in (False, True):
        with pytest.raises(SystemExit), stops.no_empty_folder(tmp_path / "out"):
            if written:
                (tmp_path / "out" / "answers.json").touch()
            sys.exit(143)
        assert (tmp_path / "out").exists() == written
