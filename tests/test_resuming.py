"""Runs killed with SIGKILL and gone on with: the same masks, weights and metric as one in a go."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sparseml.transformers.sparsification.training_args import TrainingArguments
from transformers import TrainerControl, TrainerState

from helpers import compat_resume, models, recipes, resuming, sparsity, stops, training, weights
from helpers.__main__ import main
from helpers.environment import REPOSITORY
from helpers.errors import UserError
from helpers.stops import Checkpoint, partial_folder

RECIPE = "minilm-6layers_prune80_quant"
ROWS = 256
STEPS_PER_EPOCH = ROWS // 8
# Its phases, in steps: masks from 6 to 58, recovery, int8 from 96, fixed ranges from 113 to 128.
PHASES = {"pruning": (10, 58), "recovery": (60, 96), "int8": (98, 112), "fixed": (114, 128)}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def flags(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what is the same for every run: data, model, recipe, checkpoints every two steps."""
    folder = tmp_path_factory.mktemp("sentences")
    nouns = {"sea": ["wave", "boat", "fish", "salt"], "sky": ["cloud", "bird", "star", "wind"]}
    rows = [
        f"a {word} and number {i},{label}"
        for i in range(ROWS // 8 + 4)
        for label, words in nouns.items()
        for word in words
    ]
    for name, part in (("train", rows[:ROWS]), ("validation", rows[ROWS:])):
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *part]) + "\n")
    return [
        *("run_glue", "--model_name_or_path", str(tiny_model), "--max_seq_length", "16"),
        *("--train_file", str(folder / "train.csv")),
        *("--validation_file", str(folder / "validation.csv")),
        *("--per_device_train_batch_size", "8", "--disable_tqdm", "true"),
        *("--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "2"),
    ]


@pytest.fixture(scope="module")
def sparse(flags: list[str]) -> list[str]:
    """Return the flags with the recipe that goes through every phase."""
    return [*flags, "--recipe", RECIPE]


@pytest.fixture(scope="module")
def whole(sparse: list[str], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*sparse, "--output_dir", str(folder)]) == 0
    return Checkpoint.load(folder)


def kill_after(step: int, command: list[str], output_dir: Path) -> None:
    """Start a real run, and kill it as soon as it has written the checkpoint of a step."""
    command = [sys.executable, "-m", "helpers", *command, "--output_dir", str(output_dir)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 300
        while not last_step(output_dir) >= step:
            assert child.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)


def last_step(output_dir: Path) -> int:
    """Return the step of the last whole checkpoint of an unfinished run, 0 without any."""
    found = resuming.checkpoints(partial_folder(output_dir))
    return resuming.step(found[-1]) if found else 0


def same_weights(one: Checkpoint, two: Checkpoint) -> bool:
    """Tell whether two checkpoints hold the same numbers, bit by bit."""
    first, second = weights.read(one.folder), weights.read(two.folder)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    phase: str, sparse: list[str], whole: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first, last = PHASES[phase]
    kill_after(first, sparse, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing that could be taken for finished"
    assert main([*sparse, "--output_dir", str(tmp_path / "run")]) == 0
    assert "Going on from checkpoint-" in capsys.readouterr().out
    resumed = Checkpoint.load(tmp_path / "run")
    assert first <= resumed.run["resumed_at_step"] < last
    assert resumed.run["steps"] == whole.run["steps"] == 4 * STEPS_PER_EPOCH
    assert same_weights(whole, resumed)
    assert resumed.metrics == whole.metrics
    rates = [
        [row["learning_rate"] for row in made.run["history"] if "learning_rate" in row]
        for made in (whole, resumed)
    ]
    assert rates[0] == rates[1]


def test_sparseml_by_itself_would_prune_twice(
    sparse: list[str],
    whole: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """The fault: without our state, a resumed run is another run."""
    kill_after(PHASES["recovery"][0], sparse, tmp_path / "run")
    monkeypatch.setattr(
        compat_resume,
        "restore",
        lambda trainer, checkpoint: weights.load(trainer.model, checkpoint),
    )
    code = main([*sparse, "--output_dir", str(tmp_path / "run")])
    assert "Going on from checkpoint-" in capsys.readouterr().out
    # Either a proof fails, or the model is another one.
    assert code == 1 or not same_weights(whole, Checkpoint.load(tmp_path / "run"))


def test_scales_for_each_output_come_back(flags: list[str], tmp_path: Path) -> None:
    """Until QAT has seen a batch there is one scale; the checkpoint holds one an output."""
    int8 = [*flags, "--recipe", "minilm-6layers_quant_per_channel", "--recipe_args", "num_epochs=1"]
    assert main([*int8, "--output_dir", str(tmp_path / "whole")]) == 0
    # Int8 from step 21, fixed ranges from 26.
    kill_after(22, int8, tmp_path / "run")
    assert main([*int8, "--output_dir", str(tmp_path / "run")]) == 0
    whole, resumed = (Checkpoint.load(tmp_path / name) for name in ("whole", "run"))
    assert 22 <= resumed.run["resumed_at_step"] < STEPS_PER_EPOCH
    assert same_weights(whole, resumed)


def test_a_run_killed_between_two_epochs_goes_on_too(flags: list[str], tmp_path: Path) -> None:
    """The Trainer would write the checkpoint before the epoch is measured, and never measure it."""
    plain = [*flags, "--num_train_epochs", "3", "--save_steps", str(STEPS_PER_EPOCH)]
    assert main([*plain, "--output_dir", str(tmp_path / "whole")]) == 0
    kill_after(STEPS_PER_EPOCH, plain, tmp_path / "run")
    assert main([*plain, "--output_dir", str(tmp_path / "run")]) == 0
    whole, resumed = (Checkpoint.load(tmp_path / name) for name in ("whole", "run"))
    assert resumed.run["resumed_at_step"] % STEPS_PER_EPOCH == 0
    assert measured(whole) == measured(resumed)
    assert [row["epoch"] for row in measured(whole)] == [1, 2, 3]
    assert same_weights(whole, resumed)


def measured(checkpoint: Checkpoint) -> list[dict[str, float]]:
    """Return epoch and loss of each time that a run was measured on its way."""
    rows = [row for row in checkpoint.run["history"] if "eval_loss" in row]
    return [{name: row[name] for name in ("epoch", "eval_loss")} for row in rows]


@pytest.mark.parametrize(
    ("epoch", "step", "best", "at_step", "at_end"),
    [
        (1.5, 20, False, True, True),
        (1.5, 24, False, False, False),  # the last step: the Trainer would go on with one more
        (1.5, 24, True, True, True),  # it may be the best
        (2.0, 24, False, False, True),
    ],
)
def test_checkpoints_are_written_where_a_run_can_go_on(
    epoch: float, step: int, best: bool, at_step: bool, at_end: bool, tmp_path: Path
) -> None:
    every = {"evaluation_strategy": "epoch", "save_strategy": "epoch", "use_cpu": True}
    args = TrainingArguments(str(tmp_path), load_best_model_at_end=best, **every)
    state = TrainerState(epoch=epoch, global_step=step, max_steps=24)
    control, kept = TrainerControl(should_save=True), resuming.GoodCheckpoints()
    kept.on_step_end(args, state, control)
    assert control.should_save == at_step
    kept.on_epoch_end(args, state, control)
    assert control.should_save == at_end


@pytest.mark.parametrize(("after", "left"), [(None, 0.9), (2, None), (1, 0.9)])
def test_a_best_model_from_before_one_counts_is_forgotten(
    after: int | None, left: float | None, tmp_path: Path
) -> None:
    args = TrainingArguments(str(tmp_path), use_cpu=True, best_model_after_epoch=after)
    state = TrainerState(epoch=2.0, best_metric=0.9, best_model_checkpoint="checkpoint-2")
    resuming.GoodCheckpoints().on_train_begin(args, state, TrainerControl())
    assert state.best_metric == left
    assert (state.best_model_checkpoint is None) == (left is None)


def test_a_run_of_summed_batches_goes_on_where_it_was(flags: list[str], tmp_path: Path) -> None:
    """Of 32 batches 30 make 6 updates; the Trainer would look for its place among 32."""
    plain = [*flags, "--gradient_accumulation_steps", "5", "--num_train_epochs", "3"]
    assert main([*plain, "--output_dir", str(tmp_path / "whole")]) == 0
    kill_after(8, plain, tmp_path / "run")
    named = ["--resume_from_checkpoint", f"run/checkpoint-{last_step(tmp_path / 'run')}"]
    assert main([*plain, *named, "--output_dir", str(tmp_path / "run")]) == 0
    whole, resumed = (Checkpoint.load(tmp_path / name) for name in ("whole", "run"))
    assert 8 <= resumed.run["resumed_at_step"] < 18
    assert whole.run["steps"] == resumed.run["steps"] == 18
    assert [row["epoch"] for row in measured(whole)] == [1, 2, 3]
    assert same_weights(whole, resumed)


def test_hidden_words_stay_the_same(tiny_model: Path, tmp_path: Path) -> None:
    text = "\n".join(f"a {word} and number {i}" for i in range(64) for word in ("wave", "cloud"))
    (tmp_path / "sea.txt").write_text(text)
    plain = [
        *("run_mlm", "--model_name_or_path", str(tiny_model), "--max_seq_length", "16"),
        *("--train_file", str(tmp_path / "sea.txt"), "--per_device_train_batch_size", "2"),
        *("--num_train_epochs", "2", "--save_strategy", "steps", "--save_steps", "2"),
        *("--disable_tqdm", "true"),
    ]
    assert main([*plain, "--output_dir", str(tmp_path / "whole")]) == 0
    kill_after(4, plain, tmp_path / "run")
    assert main([*plain, "--output_dir", str(tmp_path / "run")]) == 0
    whole, resumed = (Checkpoint.load(tmp_path / name) for name in ("whole", "run"))
    assert 4 <= resumed.run["resumed_at_step"] < whole.run["steps"]
    assert same_weights(whole, resumed)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Return an output folder beside which a killed run of the request {'seed': 1} lies."""
    partial = partial_folder(tmp_path / "run")
    for step in (4, 12, 8):
        (partial / f"checkpoint-{step}").mkdir(parents=True)
        (partial / f"checkpoint-{step}" / compat_resume.STATE).touch()
    (partial / "checkpoint-16").mkdir()
    (partial / resuming.REQUEST).write_text(json.dumps({"seed": 1}))
    return tmp_path / "run"


def test_the_last_whole_checkpoint_is_taken(killed: Path) -> None:
    for asked in (None, "true", True):
        found = resuming.place_to_resume(killed, asked, {"seed": 1}, None)
        assert found is not None and found.name == "checkpoint-12", (
            "16 was never written to its end"
        )
    found = resuming.place_to_resume(killed, "elsewhere/checkpoint-8", {"seed": 1}, None)
    assert found is not None and found.name == "checkpoint-8"
    assert resuming.place_to_resume(killed, "false", {"seed": 1}, None) is None


def test_the_best_checkpoint_and_the_logs_stay_with_the_last(killed: Path) -> None:
    partial = partial_folder(killed)
    (partial / "runs").mkdir()
    state = {"best_model_checkpoint": str(partial / "checkpoint-4")}
    (partial / "checkpoint-12" / "trainer_state.json").write_text(json.dumps(state))
    keep = resuming.needed(resuming.place_to_resume(killed, None, {"seed": 1}, None))
    with pytest.raises(UserError), stops.writing(killed, keep=keep):
        raise UserError("refused")
    assert {left.name for left in partial.iterdir() if left.is_dir()} == {
        *("checkpoint-4", "checkpoint-12", "runs")
    }
    assert resuming.needed(None) == ()


def test_logs_are_written_where_the_run_is(tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path / "run"), use_cpu=True)
    training.settle(args, tmp_path / "run", None)
    assert Path(args.logging_dir).parent == partial_folder(tmp_path / "run") / "runs"
    elsewhere = TrainingArguments(str(tmp_path / "run"), logging_dir=str(tmp_path), use_cpu=True)
    training.settle(elsewhere, tmp_path / "run", None)
    assert elsewhere.logging_dir == str(tmp_path)


@pytest.mark.parametrize(
    "mistake",
    [
        ["--model_name_or_path", "./minilm-no-such"],
        ["--max_seq_length", "5120"],
        ["--recipe", "minilm-6layers_transfer"],
        ["--max_steps", "20", "--recipe", RECIPE],
        ["--gradient_accumulation_steps", "64"],
    ],
    ids=lambda flags: flags[0],
)
def test_a_mistake_costs_no_checkpoint(mistake: list[str], flags: list[str], killed: Path) -> None:
    assert main([*flags, "--output_dir", str(killed), *mistake]) == 2
    assert last_step(killed) == 12


def test_another_run_starts_anew_or_is_refused(killed: Path, capsys: pytest.CaptureFixture) -> None:
    assert resuming.place_to_resume(killed, None, {"seed": 2}, None) is None
    assert "Starting anew, not from checkpoint-12: that run had another seed" in (
        capsys.readouterr().out
    )
    with pytest.raises(UserError, match="that run had another seed"):
        resuming.place_to_resume(killed, "true", {"seed": 2}, None)
    # Neither what is asked for on top of it, nor what is no longer asked for.
    with pytest.raises(UserError, match="that run had another dropout"):
        resuming.place_to_resume(killed, "true", {"seed": 1, "dropout": 0.0}, None)
    with pytest.raises(UserError, match="that run had another seed"):
        resuming.place_to_resume(killed, "true", {}, None)
    with pytest.raises(UserError, match="holds no such checkpoint"):
        resuming.place_to_resume(killed, "checkpoint-16", {"seed": 1}, None)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps"),
    ],
)
def test_the_same_sum_of_other_batches_is_another_run(
    changed: dict[str, int], named: str, killed: Path
) -> None:
    """The Trainer would take the batch of the checkpoint, and count other epochs."""
    partial = partial_folder(killed)
    args = TrainingArguments(str(killed), use_cpu=True, per_device_train_batch_size=8)
    before = resuming.same_batches({"seed": 1}, args)
    resuming.note_request(partial, before)
    assert resuming.obstacle(partial, before, None) is None
    now = resuming.same_batches({"seed": 1}, replace(args, **changed))
    assert f"that run had another {named}" in str(resuming.obstacle(partial, now, None))


@pytest.mark.parametrize("name", ["minilm-6layers_movement80", "minilm-6layers_obs90"])
def test_what_sparseml_does_not_save_is_refused(name: str, killed: Path) -> None:
    with pytest.raises(UserError, match="does not save what"):
        resuming.place_to_resume(killed, "true", {"seed": 1}, recipes.load_recipe(name))
    assert resuming.place_to_resume(killed, None, {"seed": 1}, recipes.load_recipe(name)) is None


def test_the_zeros_promised_are_there(whole: Checkpoint) -> None:
    made = sparsity.sparse_parameters(models.load_model(whole))
    assert len(made) == 12 and all(abs(zeros - 0.8) < 0.01 for zeros in made.values())
