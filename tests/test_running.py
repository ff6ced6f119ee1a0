"""The flags that all run_* commands share: evaluate, teachers, other people's models, hub cache."""

import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from helpers import adoption, models, recipes, requests, resuming, teaching, training
from helpers.__main__ import main
from helpers.commands import given, print_json, running
from helpers.commands.arguments import TextArguments
from helpers.commands.recorded import recorded_flags
from helpers.errors import UserError
from helpers.question_answering import QuestionAnswering
from helpers.recipes import load_recipe
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.text_tasks import MultiLabel, Regression
from helpers.upstream import Upstream

DISTILLING = "minilm-6layers_prune80_quant_distill"


@pytest.fixture(scope="module")
def data(tiny_files: list[str]) -> list[str]:
    """Return the flags that name the tiny task's rows as files, and how they are trained on."""
    quick = ["--per_device_train_batch_size", "8", "--disable_tqdm", "true"]
    return [*tiny_files, "--max_seq_length", "16", *quick]


@pytest.fixture
def foreign(dense: Checkpoint, tmp_path: Path) -> Path:
    """Return the dense model as any Hugging Face user would have saved it."""
    folder = tmp_path / "foreign"
    network = AutoModelForSequenceClassification.from_pretrained(dense.folder)
    network.save_pretrained(folder)
    models.load_tokenizer(dense.folder).save_pretrained(folder)
    return folder


def run(*argv: object) -> int:
    """Run run_glue."""
    return main(["run_glue", *map(str, argv)])


@pytest.fixture
def refused(
    data: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> Callable[..., str]:
    """Return a function that wants the tiny model trained, is refused first, and says why."""

    def refuse(*flags: str) -> str:
        place = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
        assert run(*data, *place, *flags) == 2
        assert not any(tmp_path.iterdir())
        return capsys.readouterr().err

    return refuse


def test_a_model_may_be_measured_where_it_lies(
    dense: Checkpoint, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its own files are sealed, so what is measured lies below them."""
    place = shutil.copytree(dense.folder, tmp_path / "dense")
    flags = ["--model_name_or_path", place, "--output_dir", place, "--do_eval", "--json"]
    for _ in range(2):
        assert run(*data, *flags) == 0
        Checkpoint.load(place)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["output_dir"] == str(place / "evaluation")
    assert (place / "evaluation" / "eval_results.json").is_file()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--learning_rate", "nan"], "--learning_rate is nan"),
        (["--learning_rate", "inf"], "--learning_rate is inf"),
        (["--num_train_epochs", "nan"], "--num_train_epochs is nan"),
        (["--seed", str(10**20)], "--seed and --data_seed may be"),
        (["--dataloader_num_workers", "-1"], "--dataloader_num_workers is -1"),
        (["--weight_decay", "nan"], "--weight_decay is nan"),
        (["--adam_beta1", "1.5"], "--adam_beta1 is 1.5"),
        (["--dataloader_drop_last", "true"], "--dataloader_drop_last is not done here"),
        (["--dataloader_persistent_workers", "true"], "would not hear of the next epoch"),
        (["--split_batches", "true"], "--split_batches is not done here"),
        (["--prediction_loss_only", "true"], "--prediction_loss_only is not done here"),
        (["--bf16_full_eval", "true"], "--bf16_full_eval is not done here"),
        (["--report_to", "wandb"], "--report_to wandb: its package is not installed"),
        (["--push_to_hub"], "--push_to_hub is not done here"),
        (["--recipe_args", "num_epochs=3"], "--recipe_args has no recipe to change"),
        (["--max_seq_length", "2"], "Use --max_seq_length 4 or more"),
        (["--onnx_export_format", "tflite", "--onnx_export_path", "x"], "Expected one of deepspar"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_flags_that_cannot_work_are_refused_in_a_line(
    flags: list[str],
    reason: str,
    data: list[str],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    place = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    assert run(*data, *place, *flags) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert len(message.splitlines()) <= 2
    assert not any(tmp_path.iterdir())


def test_a_training_that_diverges_says_so(
    data: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    assert run(*data, *place, "--learning_rate", "1e30", "--max_steps", "3") == 1
    assert "diverged: lower --learning_rate" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_recipe_is_read_though_nothing_is_trained(
    dense: Checkpoint, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--model_name_or_path", dense.folder, "--output_dir", tmp_path, "--do_eval"]
    assert run(*data, *flags, "--recipe", "nope") == 2
    assert run(*data, *flags, "--recipe", "minilm-6layers_prune80", "--dropout", "0") == 0
    assert "minilm-6layers_prune80 and --dropout will not count" in capsys.readouterr().out


def test_evaluation_alone_trains_nothing(
    dense: Checkpoint, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {file: file.stat().st_mtime_ns for file in dense.folder.iterdir()}
    out = tmp_path / "measured"
    flags = ["--model_name_or_path", dense.folder, "--output_dir", out, "--do_eval=True", "--json"]
    assert run(*data, *flags) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["metrics"] == pytest.approx(dense.metrics)
    assert json.loads((out / "eval_results.json").read_text()) == found["metrics"]
    assert before == {file: file.stat().st_mtime_ns for file in dense.folder.iterdir()}


def test_only_what_was_given_counts_as_given(tmp_path: Path) -> None:
    assert given(["--do_eval=False", "--seed", "1"], "do_eval") == {"do_eval": "False"}
    assert given(["--do_eval", "--seed", "1"], "do_eval", "seed", "x") == {
        "do_eval": "true",
        "seed": "1",
    }
    (tmp_path / "flags.yaml").write_text("do_eval: false\nseed: 3\n")
    found = given([str(tmp_path / "flags.yaml")], "do_eval", "num_train_epochs")
    assert found == {"do_eval": "false"}


def test_a_finished_run_is_taken_up_by_the_same_flags(
    dense: Checkpoint, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--model_name_or_path", dense.folder, "--output_dir", tmp_path / "o"]
    assert run(*data, *flags, "--max_steps", "1") == 0
    written = (tmp_path / "o" / "run.json").stat().st_mtime_ns
    onnx = ["--onnx_export_path", tmp_path / "onnx"]
    assert run(*data, *flags, "--max_steps", "1", *onnx) == 0, "the export alone was missing"
    assert "nothing to train" in capsys.readouterr().out
    proof = (tmp_path / "onnx" / "proof.json").read_text()
    assert run(*data, *flags, "--max_steps", "1", *onnx) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (tmp_path / "onnx" / "proof.json").read_text() == proof
    # Another run is not stopped at its end, but before it begins.
    for other in (["--max_steps", "2"], ["--max_steps", "1", "--data_seed", "7", *onnx]):
        assert run(*data, *flags, *other) == 2
        assert "already holds something" in capsys.readouterr().err
    assert (tmp_path / "o" / "run.json").stat().st_mtime_ns == written
    assert Checkpoint.load(tmp_path / "o").run["task"] == "train", "its file's name"


def test_a_finished_model_is_exported_with_the_files_it_was_trained_on(
    dense: Checkpoint,
    data: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Not with a known data set that has the same name and labels, which would prove nothing."""
    names = [Path(file) for file in data[1:4:2]]
    for file in names:
        shutil.copy(file, tmp_path / file.name.replace("train", "sst2"))
    monkeypatch.chdir(tmp_path)
    files = ["--train_file", "sst2.csv", "--validation_file", "validation.csv"]
    flags = ["--model_name_or_path", dense.folder, "--output_dir", "run", "--max_steps", "1"]
    assert run(*data[4:], *files, *flags) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "sst2.csv").unlink()
    assert main(["export", "../run", "--onnx_export_path", "onnx"]) == 2
    assert str(tmp_path / "sst2.csv") in capsys.readouterr().err
    shutil.copy(names[0], tmp_path / "sst2.csv")
    assert main(["export", "../run", "--onnx_export_path", "onnx"]) == 0


def test_a_finished_model_needs_only_the_rows_to_measure_on(
    dense: Checkpoint, data: list[str], tmp_path: Path
) -> None:
    flags = ["--model_name_or_path", dense.folder, "--do_eval", *data[2:]]
    places = ["--output_dir", tmp_path / "measured", "--onnx_export_path", tmp_path / "onnx"]
    assert run(*flags, *places) == 0
    found = json.loads((tmp_path / "measured" / "eval_results.json").read_text())
    assert found == pytest.approx(dense.metrics)
    assert (tmp_path / "onnx" / "proof.json").is_file()
    export = ["export", str(dense.folder), *data[2:4]]
    assert main([*export, "--onnx_export_path", str(tmp_path / "again")]) == 0


def test_a_wrong_size_is_refused_before_anything_is_trained(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("TUTORIAL_TIER", "bogus")
    assert run(*data, "--output_dir", tmp_path / "o") == 2
    assert "TUTORIAL_TIER is 'bogus'" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_foreign_model_is_refused_in_words(
    file: str, foreign: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (foreign / file).write_bytes((foreign / file).read_bytes()[:100])
    flags = ["--model_name_or_path", foreign, "--output_dir", tmp_path / "o", "--do_eval"]
    assert run(*data, *flags) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_int8_that_would_begin_after_the_last_step_is_refused_first(
    refused: Callable[..., str],
) -> None:
    recipe = ["--recipe", "minilm-6layers_quant", "--recipe_args", "num_epochs=2"]
    said = refused("--max_train_samples", "8", *recipe)
    assert "turns to int8 at epoch 1.3, after the last of the 2 steps" in said


def test_rows_to_measure_on_are_of_the_runs_kind(
    dense: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Whole numbers alone look like classes, names between commas like one name."""
    run_of = {"kind": "Regression", "labels": ["label"], "task": "x"}
    found = recorded_flags(run_of, TextArguments, ["--validation_file", "other.csv"])
    assert found["problem_type"] == "regression"
    typed = recorded_flags(run_of, TextArguments, [])
    assert (typed["problem_type"], typed["dataset_name"]) == ("regression", "x")
    assert "problem_type" not in recorded_flags({"kind": "Upstream"}, TextArguments, [])


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (["--label_names", "foo"], "--label_names is not done here"),
        (["--eval_accumulation_steps", "0"], "--eval_accumulation_steps is below 1"),
    ],
)
def test_flags_that_would_end_in_a_traceback_are_refused(
    flag: list[str], said: str, refused: Callable[..., str]
) -> None:
    assert said in refused(*flag)


def test_int8_ranges_that_no_step_would_set_are_refused_first(
    refused: Callable[..., str],
) -> None:
    """Both at the fourth of five steps: under ranges that never saw a text all weights are 0."""
    recipe = ["--recipe", "minilm-6layers_quant", "--recipe_args", "num_epochs=1"]
    said = refused("--max_train_samples", "40", *recipe)
    assert "ranges at 0.8, with no step between, of 5 an epoch" in said


def test_the_last_line_is_json_whatever_was_measured(capsys: pytest.CaptureFixture) -> None:
    print_json(True, {"perplexity": math.inf, "loss": [math.nan, 1.5]})
    assert capsys.readouterr().out == '{"perplexity": null, "loss": [null, 1.5]}\n'


def test_a_folder_that_cannot_be_written_is_refused_before_it_is_measured(
    dense: Checkpoint, data: list[str], capsys: pytest.CaptureFixture
) -> None:
    flags = ["--model_name_or_path", dense.folder, "--do_eval", "--output_dir", "/dev/null/x"]
    assert run(*data, *flags) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_a_strangers_recipe_is_looked_at_before_it_is_run(
    foreign: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (foreign / "recipe.yaml").write_text("num_epochs: eval(9**9**9)\nmodifiers: []\n")
    flags = ["--model_name_or_path", foreign, "--output_dir", tmp_path / "o", "--do_eval"]
    assert run(*data, *flags) == 2
    assert "eval(9**9**9) refused, nothing was run" in capsys.readouterr().err


def test_dropout_is_taken_and_a_share_that_is_none_refused(
    data: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    flags += ["--max_train_samples", "8", "--max_steps", "1"]
    assert run(*data, *flags, "--dropout", "1.5") == 2
    assert "--dropout is a share from 0 to below 1, not 1.5" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    assert run(*data, *flags, "--dropout", "0") == 0
    assert Checkpoint.load(tmp_path / "run").run["request"]["dropout"] == 0.0


def test_a_recipe_cut_short_is_said(
    data: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    flags += ["--max_train_samples", "8"]
    recipe = ["--recipe", "minilm-6layers_quant", "--recipe_args", "num_epochs=8,init_lr=0.005"]
    # Whether int8 learnt this fast is any good is not asked here.
    run(*data, *flags, *recipe, "--max_steps", "7")
    assert "--max_steps 7 ends minilm-6layers_quant early" in capsys.readouterr().out


def test_somebody_elses_model_can_be_measured(
    foreign: Path, dense: Checkpoint, data: list[str], tmp_path: Path
) -> None:
    flags = ["--model_name_or_path", foreign, "--output_dir", tmp_path / "measured", "--do_eval"]
    assert run(*data, *flags) == 0
    found = json.loads((tmp_path / "measured" / "eval_results.json").read_text())
    assert found == pytest.approx(dense.metrics)


ASKED = {"id": 1, "context": "the sea", "question": "what?"}
ASKED["answers"] = {"text": ["sea"], "answer_start": [4]}


@pytest.mark.parametrize(
    ("command", "name", "content"),
    [
        ("run_qa", "some.jsonl", json.dumps(ASKED)),
        ("run_mlm", "some.txt", "the sea and the sky\n" * 50),
        ("run_ner", "some.txt", "the O\nsea B-LOC\n"),
    ],
)
def test_another_kinds_command_does_not_measure_a_finished_model(
    command: str,
    name: str,
    content: str,
    dense: Checkpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / name).write_text(content)
    flags = ["--model_name_or_path", dense.folder, "--validation_file", tmp_path / name]
    places = ["--do_eval", "--output_dir", tmp_path / "measured"]
    assert main([command, *map(str, flags + places)]) == 2
    assert "Give the data it was trained for" in capsys.readouterr().err
    assert not (tmp_path / "measured").exists()


def test_somebody_elses_model_can_teach(foreign: Path, dense: Checkpoint, tiny_task: Task) -> None:
    taught_by = running.teacher(str(foreign), dense, tiny_task)
    batch = {"input_ids": torch.arange(8).reshape(2, 4)}
    with torch.no_grad():
        answers = [models.load_model(c)(**batch).logits for c in (taught_by, dense)]
    assert torch.equal(*answers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["BertForQuestionAnswering"]}, "needs a BertForSequenceClassification"),
        ({"id2label": {"0": "sky", "1": "sea"}}, "answers .*sky.*sea.*asks for"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "asks for"),
    ],
)
def test_a_model_of_another_task_is_not_adopted(
    change: dict, message: str, foreign: Path, tiny_task: Task
) -> None:
    file = foreign / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        adoption.adopt(foreign, tiny_task)


def test_a_model_without_label_names_is_taken_at_its_word(foreign: Path, tiny_task: Task) -> None:
    file = foreign / "config.json"
    nameless = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **nameless}))
    assert adoption.adopt(foreign, tiny_task).run["labels"] == tiny_task.labels


def test_a_plain_encoder_has_nothing_to_teach_or_measure(
    tiny_model: Path, dense: Checkpoint, tiny_task: Task
) -> None:
    with pytest.raises(UserError, match="is a BertModel; sea-or-sky needs a BertForSeq"):
        running.teacher(str(tiny_model), dense, tiny_task)
    with pytest.raises(UserError, match="self: .* has no trained head yet"):
        running.teacher("self", str(tiny_model), tiny_task)
    assert running.teacher("self", dense, tiny_task) is dense


def test_disable_leaves_a_declared_teacher_out(
    dense: Checkpoint, data: list[str], tmp_path: Path
) -> None:
    flags = ["--model_name_or_path", dense.folder, "--output_dir", tmp_path / "out"]
    recipe = ["--recipe", "minilm-6layers_prune80_quant_distill", "--recipe_args", "num_epochs=2"]
    assert run(*data, *flags, *recipe) == 2, "it declares a teacher, none is given"
    assert run(*data, *flags, *recipe, "--distill_teacher", "disable") == 0
    assert Checkpoint.load(tmp_path / "out").run["quantized_modules"] > 0


@pytest.mark.parametrize(
    ("kind", "hardness", "recipe", "message"),
    [
        (Regression, 0.5, "minilm-6layers_prune80", "its softmax is always 1"),
        (Regression, None, "minilm-6layers_obs80_states", None),
        (MultiLabel, None, "minilm-6layers_obs80_states", "--distill_hardness 0.5, or another"),
        (MultiLabel, 0.5, None, None),
        # This recipe says itself that answers are compared, and which.
        (MultiLabel, None, DISTILLING, "--recipe_args distill_hardness=0.5, or another"),
        (Regression, None, DISTILLING, "distills answers, and x has none that can be"),
        (Upstream, None, DISTILLING, "distills answers, and x has none that can be"),
        (QuestionAnswering, None, DISTILLING, "compares logits, and a model for x answers with st"),
        (Task, None, DISTILLING, None),
        (Task, None, None, None),
    ],
)
def test_a_teacher_only_where_its_answers_carry_over(
    kind: type[Task],
    hardness: float | None,
    recipe: str | None,
    message: str | None,
    dense: Checkpoint,
) -> None:
    recipe = load_recipe(recipe) if recipe else None
    rows = Dataset.from_dict({"text": ["a"], "label": [0]})
    task = kind("x", rows, rows, ["sea", "sky"], 16)
    if message is None:
        teaching.check_teaching(task, dense, hardness, recipe)
        return
    with pytest.raises(UserError, match=message):
        teaching.check_teaching(task, dense, hardness, recipe)


def test_hidden_states_are_taught_beside_the_answers() -> None:
    """By the order of SparseML's modifiers: hardness 1 takes away what stands before it."""
    rows = Dataset.from_dict({"text": ["a"], "label": [0]})
    states = load_recipe("minilm-6layers_obs80_states")
    taught = teaching.taught(states, "teacher", 1.0, None, Task("x", rows, rows, ["a", "b"], 16))
    order = [type(modifier).__name__ for modifier in taught.manager().iter_modifiers()]
    assert order.index("DistillationModifier") < order.index("PerLayerDistillationModifier")
    for lost in ("start_epoch: -1.0", "start_epoch: 0.0\n      end_epoch: 3.0"):
        head, last = states.text.rsplit("start_epoch: 0.0", 1)
        early = recipes.from_text(head + lost + last, "early", None)
        with pytest.raises(UserError, match="early: PerLayer.* before .*and no `end_epoch`"):
            teaching.taught(early, "teacher", 1.0, None, Task("x", rows, rows, ["a", "b"], 16))
    scores = Regression("x", rows, rows, ["score"], 16)
    assert teaching.taught(states, "teacher", None, None, scores) is states
    with pytest.raises(UserError, match="no softened answers.*--distill_temperature away"):
        teaching.taught(states, "teacher", 0.5, None, scores)


def recipe_of_states(folder: Path, name: str = "minilm-6layers_obs80_states") -> Path:
    """Write a recipe that compares hidden states for a model of two layers."""
    lines = load_recipe(name).text.splitlines()
    gone = tuple(f"        - bert.encoder.layer.{layer}." for layer in range(2, 6))
    recipe = folder / "states.yaml"
    recipe.write_text("\n".join(line for line in lines if not line.startswith(gone)))
    return recipe


def test_a_teacher_without_the_layers_to_compare_is_refused(
    dense: Checkpoint, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(dense.folder, num_hidden_layers=1)
    network.save_pretrained(tmp_path / "short")
    models.load_tokenizer(dense.folder).save_pretrained(tmp_path / "short")
    flags = ["--model_name_or_path", dense.folder, "--output_dir", tmp_path / "out"]
    flags += ["--recipe", recipe_of_states(tmp_path), "--distill_teacher", tmp_path / "short"]
    assert run(*data, *flags) == 2
    error = capsys.readouterr().err
    assert "no module bert.encoder.layer.1.output.LayerNorm to compare. The teacher has" in error
    assert not (tmp_path / "out").exists()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """One list for each model that is loaded; it grows by one for every pass of the model."""
    load, passes = models.load_model, []

    def counted(checkpoint: Checkpoint) -> torch.nn.Module:
        network = load(checkpoint)
        asked: list[int] = []
        passes.append(asked)
        network.bert.encoder.layer[0].register_forward_hook(lambda *_: asked.append(1))
        return network

    monkeypatch.setattr(models, "load_model", counted)
    return passes


def test_a_teacher_of_hidden_states_runs_along_once_a_step(
    dense: Checkpoint, data: list[str], tmp_path: Path, passes: list[list[int]]
) -> None:
    flags = ["--model_name_or_path", dense.folder, "--recipe", recipe_of_states(tmp_path)]
    flags += ["--recipe_args", "num_epochs=1,num_grads=2", "--evaluation_strategy", "no"]
    alone = [*flags, "--output_dir", tmp_path / "alone"]
    assert run(*data, *alone) == 2, "it declares a teacher, none is given"
    taught = [*flags, "--distill_teacher", dense.folder, "--output_dir", tmp_path / "taught"]
    assert run(*data, *taught) == 0
    steps, masks = Checkpoint.load(tmp_path / "taught").run["steps"], 6
    student, teacher, *_ = map(len, passes)
    assert (student, teacher) == (steps + 2 * masks, steps)


def test_hidden_states_are_taught_while_weights_are_rounded(
    dense: Checkpoint, data: list[str], tmp_path: Path, passes: list[list[int]]
) -> None:
    recipe = recipe_of_states(tmp_path, "minilm-6layers_quant_states")
    flags = ["--model_name_or_path", dense.folder, "--recipe", recipe]
    flags += ["--recipe_args", "num_epochs=1", "--evaluation_strategy", "no"]
    flags += ["--distill_teacher", dense.folder, "--output_dir", tmp_path / "int8"]
    assert run(*data, *flags) == 0
    int8 = Checkpoint.load(tmp_path / "int8").run
    assert int8["quantized_modules"] > 0
    _, teacher, *_ = map(len, passes)
    assert teacher == int8["steps"], "before and after the start of int8 training"


def test_checkpoints_on_the_way_are_kept_as_asked(
    dense: Checkpoint, data: list[str], tmp_path: Path
) -> None:
    flags = ["--model_name_or_path", dense.folder, "--output_dir", tmp_path / "out"]
    keep = ["--save_strategy", "epoch", "--save_total_limit", "2", "--num_train_epochs", "3"]
    assert run(*data, *flags, *keep) == 0
    kept = sorted(folder.name for folder in (tmp_path / "out").glob("checkpoint-*"))
    assert kept == ["checkpoint-16", "checkpoint-24"]


def test_the_cache_is_named_before_the_hub_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, "elsewhere")
    running.use_cache(["--seed", "1", "--cache_dir", str(tmp_path)])
    assert running.os.environ["HF_HUB_CACHE"] == str(tmp_path)
    file = tmp_path / "flags.yaml"
    file.write_text("cache_dir: there\n")
    running.use_cache([str(file)])
    assert running.os.environ["HF_DATASETS_CACHE"] == "there"


@pytest.mark.parametrize(
    ("typed", "trains"),
    [
        ([], True),
        (["--do_eval"], False),
        (["--do_train", "--do_eval"], True),
        (["--do_train", "false"], False),
        (["--do_train=false", "--do_eval", "false"], False),
        (["--do_eval", "false"], True),
    ],
)
def test_what_is_switched_off_is_not_done(typed: list[str], trains: bool) -> None:
    assert running.will_train(typed) is trains


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--do_predict"], "--do_predict has no test file"),
        (["--per_device_train_batch_size", "0"], "Expected 1 or more"),
        (["--seed=-1"], "Expected 0 or more"),
        (["--resume_from_checkpoint", "x", "--overwrite_output_dir"], "holds no such checkpoint"),
        (["--resume_from_checkpoint", "x"], "holds no such checkpoint"),
        (
            [
                *("--load_best_model_at_end", "true", "--save_strategy", "epoch"),
                *("--recipe", "minilm-6layers_prune80"),
            ],
            "from before the recipe ended",
        ),
    ],
)
def test_flags_that_would_go_wrong_in_silence_are_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run("--output_dir", tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pairs_and_scores_are_trained_and_exported(tiny_model: Path, tmp_path: Path) -> None:
    nouns = ["wave", "boat", "cloud", "star"]
    sea = nouns[:2]
    rows = [f"a {a},the {b},{(a in sea) + (b in sea) + 0.25}" for a in nouns for b in nouns] * 8
    file = tmp_path / "alike.csv"
    file.write_text("\n".join(["sentence1,sentence2,score", *rows]) + "\n")
    files = ["--train_file", file, "--validation_file", file, "--max_seq_length", "16"]
    flags = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    # Well learnt: rounding to int8 turns the correlation of a guess into another one.
    recipe = ["--recipe", "minilm-6layers_quant", "--recipe_args", "num_epochs=8,init_lr=0.005"]
    quick = [
        "--per_device_train_batch_size",
        "8",
        "--disable_tqdm",
        "true",
        "--onnx_export_path",
        tmp_path / "onnx",
    ]
    assert run(*files, *flags, *recipe, *quick) == 0
    made = Checkpoint.load(tmp_path / "run")
    assert made.run["kind"] == "Regression"
    assert list(made.metrics)[0] == "pearson"
    shutil.rmtree(tmp_path / "onnx")


def test_bf16_steps_aside_where_answers_are_measured(
    data: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = set(), BertForSequenceClassification.forward

    # The Trainer reads from the signature which columns to keep.
    @functools.wraps(real)
    def forward(self: BertForSequenceClassification, *args: object, **kwargs: object) -> object:
        seen.add((self.training, torch.is_autocast_enabled("cpu")))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", forward)
    flags = ["--model_name_or_path", tiny_model, "--max_steps", "2"]
    assert run(*data, *flags, "--output_dir", tmp_path / "yes", "--bf16") == 0
    assert seen == {(True, True), (False, False)}
    assert Checkpoint.load(tmp_path / "yes").run["bf16"] is True
    # "false" is an answer, too, where autocast would be faster.
    monkeypatch.setattr(training, "default_bf16", lambda: True)
    assert run(*data, *flags, "--output_dir", tmp_path / "no", "--bf16", "false") == 0
    assert Checkpoint.load(tmp_path / "no").run["bf16"] is False


def test_a_recipe_is_run_whole_with_accumulated_gradients(
    data: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    flags = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    flags += ["--max_train_samples", "48", "--per_device_train_batch_size", "8"]
    recipe = ["--recipe", "minilm-6layers_prune80", "--recipe_args", "num_epochs=8"]
    assert run(*data, *flags, *recipe, "--gradient_accumulation_steps", "4") == 0


def test_a_run_that_ends_before_its_recipe_is_refused_first(refused: Callable[..., str]) -> None:
    said = refused("--recipe", "minilm-6layers_prune80", "--max_steps", "1")
    assert "--max_steps 1 ends before minilm-6layers_prune80" in said


def test_what_a_recipe_overrules_is_said(
    data: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    flags += ["--recipe", "minilm-6layers_prune80", "--max_steps", "1"]
    for typed, named in (
        (["--learning_rate", "1e-6"], "so --learning_rate will not count"),
        (["--lr_scheduler_type=constant"], "so --lr_scheduler_type will not count"),
    ):
        run(*data, *flags, *typed)
        assert named in capsys.readouterr().out
    run(*data, *flags)
    assert "will not count" not in capsys.readouterr().out


def test_the_best_model_is_another_run_than_the_last(
    data: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    flags += ["--max_steps", "2", "--save_strategy", "epoch"]
    assert run(*data, *flags) == 0
    assert run(*data, *flags, "--load_best_model_at_end") == 2
    assert "already holds something" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", [[], ["--load_best_model_at_end"]], ids=["noted", "wanted"])
def test_a_best_model_by_an_unknown_metric_is_refused(
    wanted: list[str],
    data: list[str],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    flags = ["--model_name_or_path", tiny_model, "--output_dir", tmp_path / "run"]
    flags += ["--max_steps", "2", "--save_strategy", "epoch", *wanted]
    assert run(*data, *flags, "--metric_for_best_model", "acc") == 2
    message = capsys.readouterr().err
    assert "--metric_for_best_model acc is none of this task's" in message
    assert "accuracy" in message
    assert not any(tmp_path.iterdir())


def test_without_the_optimizer_nothing_is_gone_on_with(
    data: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    flags = ["--model_name_or_path", tiny_model, "--max_steps", "3"]
    flags += ["--save_strategy", "steps", "--save_steps", "1"]
    for name, more in (("all", []), ("weights", ["--save_only_model"])):
        assert run(*data, *flags, *more, "--output_dir", tmp_path / name) == 0
        assert (tmp_path / name / "checkpoint-1").is_dir()
    # The last step needs none: the run is over.
    assert len(resuming.checkpoints(tmp_path / "all")) == 2
    assert resuming.checkpoints(tmp_path / "weights") == []


def test_smoothed_labels_are_refused_where_none_are_looked_at(
    tiny_task: Task,
    dense: Checkpoint,
    data: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    flags = ["--model_name_or_path", dense.folder, "--output_dir", tmp_path / "run"]
    flags += ["--label_smoothing_factor", "0.1", "--max_steps", "1"]
    assert run(*data, *flags, "--distill_teacher", "self") == 2
    assert "no effect beside a teacher" in capsys.readouterr().err
    with pytest.raises(UserError, match="no effect beside a teacher"):
        # By name, as a notebook gives it.
        training.fine_tune(
            tiny_task, dense, tmp_path / "run", distill_teacher=dense, label_smoothing_factor=0.1
        )
    rows = tiny_task.train, tiny_task.validation
    with pytest.raises(UserError, match="does not fit any number of labels: it smooths one right"):
        requests.check_smoothing(MultiLabel("m", *rows, ["a", "b"], 16), None, 0.1)
    assert run(*data, *flags) == 0


def test_fp16_is_left_out_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for written in (["--fp16"], ["--fp16=true"], ["--fp16", "True"]):
        left = running.without_fp16(["--seed", "1", *written])
        assert given(left, "fp16", "seed") == {"fp16": "false", "seed": "1"}
        assert "--fp16 needs a GPU" in capsys.readouterr().out
    assert running.without_fp16(["--fp16", "false"]) == ["--fp16", "false"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert running.without_fp16(["--fp16"]) == ["--fp16"]
