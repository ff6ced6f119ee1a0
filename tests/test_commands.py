"""Commands: bad input ends in one or two lines and code 2, and a broken run leaves nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from helpers import environment
from helpers.__main__ import COMMANDS, how_to_go_on, main
from helpers.commands import parse
from helpers.environment import REPOSITORY
from helpers.errors import ProofError, UserError
from helpers.notebooks import CellFailed
from helpers.stops import Checkpoint, OnnxModel

RECIPE = "num_epochs: 1.0\nmodifiers:\n  - !EpochRangeModifier\n      start_epoch: 0.0\n"
RECIPE += "      end_epoch: eval(num_epochs)\n"
PRUNE = "  - !GMPruningModifier\n      start_epoch: {start}\n      end_epoch: {end}\n"
PRUNE += "      update_frequency: 0.5\n      init_sparsity: 0.0\n      final_sparsity: 0.5\n"
PRUNE += "      params: ['{pattern}']\n"
QUERY = "re:.*self.query.weight"
BAD_RECIPES = {
    "notyaml": ("num_epochs: [1.0", "not YAML"),
    "modifier": ("num_epochs: 1.0\nm:\n  - !NoSuchModifier\n      start_epoch: 0.0\n", "unknown"),
    "pattern": (RECIPE + PRUNE.format(start=0.0, end=0.5, pattern="re:nothing"), "matches nothing"),
    "late": (RECIPE + PRUNE.format(start=2.0, end=3.0, pattern=QUERY), "run ends at epoch 1"),
    "hostile": ("num_epochs: eval(__import__('os').system('touch owned'))\n", "refused"),
}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ProofError("zeros", 80, 40, "Mend."), "proof failed: zeros: expected 80, found 40"),
        (CellFailed("05, cell 3"), "notebook failed: 05, cell 3"),
    ],
)
def test_what_failed_is_a_line_and_code_1(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fails(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr("helpers.commands.inspect.main", fails)
    assert main(["inspect"]) == 1
    assert capsys.readouterr().err.startswith(said)


@pytest.fixture(scope="module")
def data(tiny_files: list[str]) -> list[str]:
    """Return the flags that name the tiny task's rows as files."""
    return [*tiny_files, "--max_seq_length", "16"]


@pytest.fixture
def flags(data: list[str], tiny_model: Path, tmp_path: Path) -> list[str]:
    """Return the flags of a short run of the tiny model into tmp_path/out/run."""
    (tmp_path / "out").mkdir()
    run = ["--model_name_or_path", str(tiny_model), "--output_dir", str(tmp_path / "out" / "run")]
    quick = ["--per_device_train_batch_size", "8", "--disable_tqdm", "true"]
    return ["run_glue", *data, *run, *quick, "--num_train_epochs", "1"]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs a command, expects a refusal, and returns its message."""

    def run(*argv: str) -> str:
        capsys.readouterr()
        assert main(list(argv)) == 2
        message = capsys.readouterr().err
        lines = [line for line in message.splitlines() if line.strip()]
        assert 1 <= len(lines) <= 2, message
        assert lines[0].startswith("error: ")
        out = tmp_path / "out"
        assert not out.exists() or not any(out.iterdir()), "something was left behind"
        return message

    return run


def test_help_names_every_command(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_help_says_what_sparsemls_flags_take(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["run_qa", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "a dense model of the same task: a folder" in shown
    assert "text classification model" not in shown


def test_wrong_commands_are_refused(refused: Callable[..., str]) -> None:
    assert "No command was given" in refused()
    assert "no command 'fine_tune'. Expected one of tutorial" in refused("fine_tune")


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_flags_are_refused(command: str, refused: Callable[..., str]) -> None:
    trains = command.startswith(("run_", "sparsify_"))
    extra = ["--output_dir", "x"] if trains else []
    assert "--no_such_flag" in refused(command, *extra, "--no_such_flag", "1")


def test_a_flag_that_was_mistyped_names_the_one_that_was_meant(
    flags: list[str], refused: Callable[..., str]
) -> None:
    assert "is --learning_rate meant? See" in refused(*flags, "--learnig_rate", "1e-4")
    assert "a.json is no flag. A file of flags must stand alone" in refused(
        "run_glue", "a.json", *flags[1:]
    )


def test_what_transformers_says_of_flags_is_shown_whole(
    flags: list[str], refused: Callable[..., str]
) -> None:
    message = refused(*flags, "--load_best_model_at_end")
    assert "found - Evaluation strategy" in message


def test_flags_without_a_usable_value_are_refused(
    flags: list[str], refused: Callable[..., str]
) -> None:
    assert "--output_dir" in refused("run_glue", "--task_name", "docs-library")
    assert "--learning_rate" in refused(*flags, "--learning_rate", "fast")
    assert "--max_train_samples is 0" in refused(*flags, "--max_train_samples", "0")
    assert "'nonsense'" in refused(*flags, "--optim", "nonsense")


def test_flag_files_that_cannot_be_used_are_refused(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "No such file" in refused("run_glue", str(tmp_path / "absent.json"))
    for name, content, message in (
        ("broken.json", "{", "--help"),
        ("list.json", "[1]", "holds no flags"),
        ("broken.yaml", "a: [", "--help"),
        ("unknown.yaml", "output_dir: x\nno_such_flag: 1", "no_such_flag"),
        ("short.json", '{"task_name": "sst2"}', "output_dir"),
    ):
        (tmp_path / name).write_text(content)
        assert message in refused("run_glue", str(tmp_path / name))


def test_missing_things_are_refused(
    flags: list[str], tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "no data file" in refused(*flags, "--train_file", str(tmp_path / "absent.csv"))
    assert "no model folder" in refused(*flags, "--model_name_or_path", str(tmp_path / "absent"))
    assert "SparseZoo" in refused(*flags, "--model_name_or_path", "zoo:bert")
    assert "holds no model" in refused(*flags, "--distill_teacher", str(tmp_path))
    assert "No column flavour" in refused(*flags, "--label_column", "flavour")
    assert "at most 64 tokens" in refused(*flags, "--max_seq_length", "65")


def test_a_tokenizer_without_a_limit_does_not_hide_the_models(
    flags: list[str], tiny_model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("model_max_length")
    file.write_text(json.dumps(settings))
    argv = [*flags, "--model_name_or_path", str(folder), "--max_seq_length", "65"]
    assert "at most 64 tokens" in refused(*argv)


def test_recipes_that_cannot_be_found_are_refused(
    flags: list[str], refused: Callable[..., str]
) -> None:
    assert "SparseZoo" in refused(*flags, "--recipe", "zoo:nlp/bert/pruned90")
    assert "No recipe minilm_prune" in refused(*flags, "--recipe", "minilm_prune")
    named = [*flags, "--recipe", "minilm-6layers_prune80", "--recipe_args"]
    assert "cannot be read" in refused(*named, "nonsense")
    assert "cannot be read" in refused(*named, "[1]")
    assert "no variable epochs" in refused(*named, "epochs=3")


@pytest.mark.parametrize("other", ["--profile", "--idle_recipe"])
def test_one_speed_is_measured_at_a_time(other: str, refused: Callable[..., str]) -> None:
    assert "give one" in refused("speed", "--recipe", "minilm-6layers_prune80", other, "--store")


def test_too_few_rows_for_the_steps_that_are_to_be_timed(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTORIAL_TIER", "smoke")
    assert "and 64 are to be timed" in refused("speed", "--idle_recipe")


def test_a_file_of_flags_is_no_model(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "flags.yaml"
    for command, flags in (
        ("quantize", "model_name_or_path: nowhere\noutput_dir: x\n"),
        ("shape", "shape: nowhere\nonnx_export_path: y\n"),
    ):
        file.write_text(flags)
        assert "nowhere" in refused(command, str(file))


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_bad_recipes_are_refused(
    name: str,
    flags: list[str],
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text, message = BAD_RECIPES[name]
    (tmp_path / f"{name}.yaml").write_text(text)
    assert message in refused(*flags, "--recipe", str(tmp_path / f"{name}.yaml"))
    assert not (tmp_path / "owned").exists(), "the recipe's code was run"


def test_distillation_is_asked_for_in_one_place(
    flags: list[str], dense: Checkpoint, refused: Callable[..., str]
) -> None:
    declares = [*flags, "--recipe", "minilm-6layers_prune80_quant_distill"]
    assert "no teacher is given" in refused(*declares)
    taught = ["--distill_teacher", str(dense.folder)]
    for flag in ("--distill_hardness", "--distill_temperature"):
        assert "and so do the flags" in refused(*declares, *taught, flag, "1.0")
        plain = [*flags, "--recipe", "minilm-6layers_prune80", flag, "0.5"]
        assert "but no teacher" in refused(*plain)
    assert "needs a recipe" in refused(*flags, *taught)
    strong = [*flags, *taught, "--recipe", "minilm-6layers_prune80", "--distill_hardness", "1.5"]
    assert "expected 0 to 1" in refused(*strong)


def test_an_occupied_folder_is_refused_before_anything_is_read(
    flags: list[str], dense: Checkpoint, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years")
    for extra in ([], ["--overwrite_output_dir"]):
        there = [*extra, "--train_file", "absent.csv"]
        assert "holds something" in refused(*flags, "--output_dir", str(tmp_path / "taken"), *there)
        onnx = ["--onnx_export_path", str(tmp_path / "taken")]
        assert "holds something" in refused(*flags, *onnx, *there)
    same = ["--onnx_export_path", str(tmp_path / "out" / "run")]
    assert "Expected two folders" in refused(*flags, *same)
    assert "Expected two folders" in refused(*flags, "--onnx_export_path", str(tmp_path / "out"))
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "years"


def test_an_export_of_nothing_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "Give the checkpoint's folder" in refused("export")
    there = ["--onnx_export_path", str(tmp_path / "out" / "onnx")]
    assert "not a finished stop" in refused("export", str(tmp_path), *there)


def test_a_path_of_unknown_stops_or_data_is_refused(refused: Callable[..., str]) -> None:
    assert "No stop 'prnue80'" in refused("path", "--stops", "dense", "prnue80")
    assert "No data set" in refused("path", "--task_name", "nobody/nothing-here")


def test_another_python_or_other_packages_are_refused_first(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUTORIAL_ANY_VERSIONS", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(environment, "locked_versions", lambda: {"torch": "0.1"})
        assert "torch is" in refused("run_glue")
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert "This is Python 3.13.0" in refused("run_glue")


def test_a_real_other_python_is_refused() -> None:
    on_path = [shutil.which(f"python3.{minor}") for minor in (9, 10, 12, 13)]
    pyenv = Path.home().glob(".pyenv/versions/3.*/bin/python")
    show = "import sys; sys.exit(sys.version_info < (3, 9) or sys.version_info[:2] == (3, 11))"
    others = [str(path) for path in (*on_path, *pyenv) if path]
    others = [path for path in others if subprocess.call([path, "-c", show]) == 0]
    if not others:
        pytest.skip("no Python but 3.11 is installed here")
    for python in others:
        done = start(["run_glue"], python)
        _, message = done.communicate(timeout=60)
        assert done.returncode == 2, message
        assert message.startswith("error: This is Python 3.")
        assert len(message.splitlines()) == 1


def start(argv: list[str], python: str = sys.executable) -> subprocess.Popen:
    """Start a command as a person would, in a process of its own."""
    return subprocess.Popen(
        [python, "-m", "helpers", *argv],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_refused_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = start(["run_glue", "--output_dir", str(tmp_path / "run"), "--recipe", "zoo:x"])
    _, message = done.communicate(timeout=120)
    assert done.returncode == 2
    assert "Traceback" not in message
    assert message.startswith("error: zoo:x: the SparseZoo no longer answers.")
    assert not any(tmp_path.iterdir())


def test_a_recipe_is_trained_exported_and_reported(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    onnx = tmp_path / "out" / "onnx"
    asked = ["--recipe", "minilm-6layers_prune80", "--recipe_args", "num_epochs=1"]
    asked += ["--onnx_export_path", str(onnx), "--json", "--num_train_epochs", "7"]
    assert main([*flags, *asked]) == 0
    printed = capsys.readouterr().out
    report = json.loads(printed.splitlines()[-1])
    trained = Checkpoint.load(report["output_dir"])
    assert trained.run["request"]["epochs"] == 1
    assert report["metrics"] == trained.metrics
    assert "sets the length: 1.0 epochs, not 7.0" in printed
    assert report["checks"] == OnnxModel.load(onnx).proof["checks"]
    assert {"zeros", "onnxruntime logits"} <= {row["check"] for row in report["checks"]}
    assert sorted(child.name for child in (tmp_path / "out").iterdir()) == ["onnx", "run"]


def test_a_file_of_flags_means_what_the_flags_mean(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pairs = dict(zip(flags[1::2], flags[2::2], strict=True))
    content = {key.removeprefix("--"): value for key, value in pairs.items()}
    numbers = ("max_seq_length", "per_device_train_batch_size", "num_train_epochs")
    content |= {name: int(content[name]) for name in numbers} | {"disable_tqdm": True}
    (tmp_path / "flags.json").write_text(json.dumps({**content, "max_steps": 2, "json": True}))
    assert main(["run_glue", str(tmp_path / "flags.json")]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    request = Checkpoint.load(report["output_dir"]).run["request"]
    assert (request["max_steps"], request["learning_rate"]) == (2, 8e-5), "our default holds"


@dataclass
class Few:
    """Flags of every kind a file can hold."""

    rate: float = 1.0
    rows: int = 1
    quick: bool = False
    names: list[str] = field(default_factory=list)


def test_a_file_is_read_like_typed_flags(tmp_path: Path) -> None:
    file = tmp_path / "flags.yaml"
    file.write_text("rate: 5e-5\nrows: 2\nquick: true\nnames: [a, b]\n")
    assert parse("x", (Few,), [str(file)]) == (Few(5e-5, 2, True, ["a", "b"]),)
    file.write_text("rows: two\n")
    with pytest.raises(UserError, match="rows: invalid int value"):
        parse("x", (Few,), [str(file)])
    with pytest.raises(UserError, match="--ro"):
        parse("x", (Few,), ["--ro", "3"])


def test_checkpoints_along_the_way_do_not_spoil_a_run(flags: list[str], tmp_path: Path) -> None:
    assert main([*flags, "--max_steps", "2", "--save_strategy", "steps", "--save_steps", "1"]) == 0
    Checkpoint.load(tmp_path / "out" / "run")


@pytest.fixture
def running(flags: list[str], tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Return a run that would take hours and has worked for a second on its training."""
    child = start([*flags, "--num_train_epochs", "10000"])
    try:
        partial = tmp_path / "out" / ".run.partial"
        deadline = time.monotonic() + 120
        while not partial.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert partial.exists(), child.communicate(timeout=10)
        process = psutil.Process(child.pid)
        used = sum(process.cpu_times()[:2])
        while sum(process.cpu_times()[:2]) < used + 1.0:
            time.sleep(0.1)
        yield child
    finally:
        child.kill()
        child.communicate(timeout=60)


def test_a_killed_run_leaves_nothing_finished_and_runs_again(
    running: subprocess.Popen, flags: list[str], tmp_path: Path
) -> None:
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=60)
    assert [left.name for left in (tmp_path / "out").iterdir()] == [".run.partial"]
    assert not (tmp_path / "out" / ".run.partial" / "run.json").exists()
    assert main([*flags, "--max_steps", "2"]) == 0
    assert [left.name for left in (tmp_path / "out").iterdir()] == ["run"]
    Checkpoint.load(tmp_path / "out" / "run")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("run_ner --output_dir x", "if the same command is given again (not"),
        ("run_glue --overwrite_output_dir=false", "if the same command is given again (not"),
        ("run_qa --overwrite_output_dir", "again with --resume_from_checkpoint true (not"),
        ("export x", "Give the same command again."),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(typed: str, said: str) -> None:
    assert said in how_to_go_on(typed.split())


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM], ids=lambda kind: kind.name)
def test_an_interrupted_run_keeps_nothing(
    running: subprocess.Popen, tmp_path: Path, kind: signal.Signals
) -> None:
    running.send_signal(kind)
    _, message = running.communicate(timeout=60)
    assert running.returncode == 130, message
    assert message.splitlines()[-1].startswith("interrupted: nothing unfinished counts as finished")
    assert "Traceback" not in message
    assert not any((tmp_path / "out").iterdir())
