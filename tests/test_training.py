"""Training: what it promises holds, and each check fails when its fault is put in."""

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sparseml.transformers.sparsification.training_args import TrainingArguments

import helpers
from helpers import (
    callbacks,
    engine_child,
    models,
    notebooks,
    processes,
    requests,
    resuming,
    sparsity,
    teaching,
    trainer,
    training_rows,
)
from helpers.errors import ProofError, UserError
from helpers.recipe_modifier import PruningTarget
from helpers.requests import measures_that_count
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.training_proof import check_pruned

# Those of the fixture.
DENSE = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 8,
    "learning_rate": 5e-3,
    "disable_tqdm": True,
}
QUICK = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "disable_tqdm": True}


def logits(model: torch.nn.Module) -> np.ndarray:
    """Return the logits of two fixed rows."""
    ids = torch.arange(2000, 2024).reshape(2, 12)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()


def test_a_dense_run_learns_and_says_how_it_was_made(dense: Checkpoint) -> None:
    assert dense.metrics["accuracy"] > 0.9
    assert {"versions", "machine", "history", "request", "minutes"} <= set(dense.run)


def test_a_mac_counts_its_peak_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(engine_child.sys, "platform", "darwin")
    monkeypatch.setattr(engine_child.Path, "exists", lambda _: False)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3 * 2**30))
    assert engine_child.peak_memory_mb() == 3 * 2**10


def test_a_pruned_run_has_the_zeros_of_its_recipe(pruned: Checkpoint) -> None:
    table = sparsity.layer_sparsity(models.load_model(pruned))
    encoder = table[table.layer >= 0]
    assert len(encoder) == 12
    assert (encoder.sparsity - 0.8).abs().max() < 0.01


def test_a_quantized_run_reloads_to_the_same_logits(sparse_int8: Checkpoint) -> None:
    model = models.load_model(sparse_int8)
    again = models.load_model(Checkpoint.load(sparse_int8.folder))
    assert np.array_equal(logits(model), logits(again))
    kinds = sparsity.quantized_modules(model)["kind"].value_counts()
    assert kinds["MatMul"] == 4, "two products in each of the two attention layers"


def test_pruned_then_quantized_keeps_its_zeros(
    pruned: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    recipe = helpers.load_recipe("minilm-6layers_quant", num_epochs=1)
    made = helpers.fine_tune(tiny_task, pruned, tmp_path / "staged", recipe=recipe, **QUICK)
    table = sparsity.layer_sparsity(models.load_model(made))
    assert table[table.layer >= 0].sparsity.min() > 0.79
    assert made.run["quantized_modules"] > 0


def test_no_dropout_is_what_a_model_without_it_learns(
    tiny_model: Path, tiny_task: Task, tmp_path: Path
) -> None:
    """The same as a config without dropout, step by step; with dropout it is another run."""
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    config = json.loads((bare / "config.json").read_text())
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (bare / "config.json").write_text(json.dumps({**config, **none}))
    ways = {"flag": (tiny_model, 0.0), "config": (bare, None), "with": (tiny_model, None)}
    made = {
        name: helpers.fine_tune(tiny_task, model, tmp_path / name, dropout=share, **QUICK)
        for name, (model, share) in ways.items()
    }
    answers = {name: logits(models.load_model(stop)) for name, stop in made.items()}
    assert np.array_equal(answers["flag"], answers["config"])
    assert not np.array_equal(answers["flag"], answers["with"])
    assert made["flag"].run["request"]["dropout"] == 0.0
    kept = json.loads((made["flag"].folder / "config.json").read_text())
    assert kept["hidden_dropout_prob"] == 0.1, "whoever goes on has the model's own again"


def test_the_same_request_is_not_trained_twice(
    dense: Checkpoint, tiny_model: Path, tiny_task: Task, capsys: pytest.CaptureFixture
) -> None:
    again = helpers.fine_tune(
        tiny_task,
        tiny_model,
        dense.folder,
        **DENSE,
    )
    assert again.run == dense.run
    assert notebooks.FOUND.findall(capsys.readouterr().out) == [dense.name]


# One other value for each setting that changes what is learnt.
OTHERS = {
    "num_train_epochs": 9,
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-7,
    "max_steps": 5,
    "seed": 7,
    "fp16": True,
    "data_seed": 7,
    "dataloader_drop_last": True,
    "full_determinism": True,
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "neftune_noise_alpha": 5.0,
    "optim_args": "a=1",
    "weight_decay": 0.5,
    "warmup_ratio": 0.5,
    "warmup_steps": 5,
    "max_grad_norm": 0.5,
    "adam_beta1": 0.5,
    "adam_beta2": 0.5,
    "adam_epsilon": 0.5,
    "group_by_length": False,
    "label_smoothing_factor": 0.5,
    "lr_scheduler_type": "constant",
    "optim": "adafactor",
}


def test_another_run_is_another_request(
    dense: Checkpoint, sparse_int8: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    assert set(requests.DECISIVE) <= set(OTHERS)
    args = TrainingArguments(output_dir=str(tmp_path), **trainer.DEFAULTS)
    base = requests.Request(tiny_task, args)
    known = [requests.describe_request(base)]
    for name, value in OTHERS.items():
        changed = copy.copy(args)
        setattr(changed, name, value)
        known.append(requests.describe_request(replace(base, args=changed)))
    recipe = helpers.load_recipe("minilm-6layers_prune80")
    for change in (
        {"task": tiny_task.shortened(8, None)},
        {"model": dense},
        {"model": sparse_int8},
        {"recipe": recipe},
        {"recipe": helpers.load_recipe("minilm-6layers_prune80", num_epochs=1)},
        {"teacher": dense},
        {"bf16": True},
        {"dropout": 0.0},
    ):
        known.append(requests.describe_request(replace(base, **change)))
    assert [i for i, one in enumerate(known) if one in known[:i]] == []


def test_a_run_that_is_to_be_overwritten_is_not_gone_on_with(
    dense: Checkpoint, tiny_model: Path, tiny_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stop(folder: Path, place: str | None, *_: object) -> None:
        asked.append(place)
        raise UserError("enough")

    monkeypatch.setattr(resuming, "place_to_resume", stop)
    for more in ({}, {"resume_from_checkpoint": "true"}):
        same = {**DENSE, **more, "overwrite": True}
        with pytest.raises(UserError, match="enough"):
            helpers.fine_tune(tiny_task, tiny_model, dense.folder, **same)
    assert asked == ["false", "true"]


def test_a_folder_with_another_run_is_refused(
    dense: Checkpoint, tiny_model: Path, tiny_task: Task
) -> None:
    with pytest.raises(UserError, match="already holds"):
        helpers.fine_tune(tiny_task, tiny_model, dense.folder, seed=7, **QUICK)


def test_weights_that_change_on_the_way_to_disk_are_noticed(
    tiny_model: Path, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_save = models.save_model

    def save_random(model: torch.nn.Module, folder: Path, *, quantized: bool) -> None:
        kept = {k: v.clone() for k, v in model.state_dict().items()}
        torch.nn.init.normal_(model.bert.encoder.layer[0].output.dense.weight)
        real_save(model, folder, quantized=quantized)
        model.load_state_dict(kept)

    monkeypatch.setattr(models, "save_model", save_random)
    with pytest.raises(ProofError, match="reload"):
        helpers.fine_tune(tiny_task, tiny_model, tmp_path / "out", **QUICK)
    assert not any(tmp_path.iterdir()), "a run that failed its proof leaves nothing behind"


def test_processes_that_drift_apart_are_noticed(
    tiny_model: Path, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "gather_object", lambda found: [*found, "other"])
    with pytest.raises(ProofError, match="the same weights and masks in all 2 processes"):
        helpers.fine_tune(tiny_task, tiny_model, tmp_path / "out", **QUICK)
    assert not any(tmp_path.iterdir())


def test_int8_that_never_began_is_noticed(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparsity, "quantized_modules", lambda network: [])
    recipe = helpers.load_recipe("minilm-6layers_quant", num_epochs=2)
    with pytest.raises(ProofError, match="QAT never started"):
        helpers.fine_tune(tiny_task, dense, tmp_path / "out", recipe=recipe, **QUICK)
    assert not any(tmp_path.iterdir())


def test_a_mask_that_is_lost_is_noticed(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_predict = trainer.RecipeTrainer.predict

    def refill(self: trainer.RecipeTrainer, *args: object, **kwargs: object) -> object:
        torch.nn.init.normal_(self.model.bert.encoder.layer[1].attention.self.key.weight)
        return real_predict(self, *args, **kwargs)

    monkeypatch.setattr(trainer.RecipeTrainer, "predict", refill)
    recipe = helpers.load_recipe("minilm-6layers_prune80", num_epochs=1)
    with pytest.raises(ProofError, match=r"sparsity: expected 80.0% zeros in .*layer\.1.*key"):
        helpers.fine_tune(tiny_task, dense, tmp_path / "out", recipe=recipe, **QUICK)


def test_shared_promises_and_blocks_are_counted(tiny_model: Path, tiny_task: Task) -> None:
    network = models.new_model(tiny_model, tiny_task)
    query, key = (
        getattr(network.bert.encoder.layer[0].attention.self, n) for n in ("query", "key")
    )
    names = [f"bert.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key")]
    with torch.no_grad():
        query.weight[:] = 0
    together, blocks = (
        PruningTarget(0.5, "unstructured", False),
        PruningTarget(0.5, "[1, 4]", False),
    )
    check_pruned({together: names}, network)
    check_pruned({blocks: names}, network)
    with pytest.raises(ProofError, match="zeros in all matrices together"):
        check_pruned({together._replace(final_sparsity=0.8): names}, network)
    with pytest.raises(ProofError, match="query"):
        check_pruned({together._replace(per_matrix=True): names}, network)
    with torch.no_grad():
        key.weight[0, 0] = 0
    with pytest.raises(ProofError, match="whole blocks of four"):
        check_pruned({blocks: names}, network)


def test_training_on_top_of_int8_is_refused(
    sparse_int8: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="already quantized"):
        helpers.fine_tune(tiny_task, sparse_int8, tmp_path / "out", **QUICK)


def test_a_teacher_of_another_task_is_refused(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    stranger = Checkpoint(dense.folder, {**dense.run, "labels": ["yes", "no"]})
    recipe = helpers.load_recipe("minilm-6layers_prune80", num_epochs=1)
    with pytest.raises(UserError, match="answers"):
        helpers.fine_tune(
            tiny_task, dense, tmp_path / "o", recipe=recipe, distill_teacher=stranger, **QUICK
        )


def test_a_teacher_with_another_vocabulary_is_refused(
    tiny_task: Task, dense: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "stranger"
    shutil.copytree(dense.folder, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    words["wave"], words["boat"] = words["boat"], words["wave"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    teaching.check_vocabulary(dense, dense)
    with pytest.raises(UserError, match="another vocabulary"):
        helpers.fine_tune(
            tiny_task,
            dense,
            tmp_path / "o",
            recipe=helpers.load_recipe("minilm-6layers_prune80"),
            distill_teacher=Checkpoint(folder, dense.run),
            **QUICK,
        )
    assert not (tmp_path / "o").exists()


def test_when_a_run_is_measured_counts_where_it_has_a_say(tmp_path: Path) -> None:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    def counted(**settings: object) -> set[str]:
        every = {"evaluation_strategy": "epoch", "save_strategy": "epoch", "use_cpu": True}
        return {*measures_that_count(TrainingArguments(str(tmp_path), **every, **settings))}

    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau"}
    looked = {"metric_for_best_model", "evaluation_strategy", "eval_steps"}
    assert counted() == set()
    assert counted(**plateau) == looked
    assert counted(**plateau, eval_delay=2) == {*looked, "eval_delay"}
    best = counted(load_best_model_at_end=True)
    assert best == {*looked, "greater_is_better", "save_strategy", "save_steps"}
    late = counted(load_best_model_at_end=True, best_model_after_epoch=1)
    assert late == {*best, "best_model_after_epoch"}


def test_recorded_answers_are_the_teachers_own(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    tokenizer = models.load_tokenizer(dense.folder)
    rows = tiny_task.encode(tokenizer, tiny_task.train)
    args = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        # What a run that measures may ask for, and one that only reads may not.
        evaluation_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        lr_scheduler_type="reduce_lr_on_plateau",
    )
    recorded = training_rows.record_answers(dense, rows, tiny_task.collator(tokenizer), args)
    model = models.load_model(dense)
    for i in (0, 31, 63):
        ids = torch.tensor([rows[i]["input_ids"]])
        with torch.no_grad():
            live = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy()
        assert np.allclose(live, recorded[i]["teacher_logits"], atol=1e-5)


@pytest.mark.parametrize(("kept", "steps"), [(True, 12), (False, 16)])
def test_a_run_ends_where_its_recipe_ends(
    kept: bool,
    steps: int,
    dense: Checkpoint,
    tiny_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 rows in batches of 8 for 1.5 epochs; without the workaround SparseML makes it 2."""
    if not kept:
        monkeypatch.setattr(trainer.compat, "keep_run_length", lambda args, num_epochs: None)
    recipe = helpers.load_recipe("minilm-6layers_prune80", num_epochs=1.5)
    made = helpers.fine_tune(tiny_task, dense, tmp_path / "half", recipe=recipe, **QUICK)
    assert made.run["steps"] == steps


def test_a_teacher_changes_what_is_learnt(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # A Mac says its peak in bytes and Linux in KiB, which `peak_memory_mb` knows.
    monkeypatch.setattr(engine_child, "peak_memory_mb", lambda: 1536.0)
    steps = []
    monkeypatch.setattr(processes, "average_ranges", steps.append)
    recipe = helpers.load_recipe("minilm-6layers_prune80", num_epochs=1)
    alone = helpers.fine_tune(tiny_task, dense, tmp_path / "alone", recipe=recipe, **QUICK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone"], "no sparse_logs/ is left"
    assert alone.run["peak_memory_gb"] == 1.5
    assert len(steps) == alone.run["steps"], "processes agree on ranges after every step"
    taught = helpers.fine_tune(
        tiny_task, dense, tmp_path / "taught", recipe=recipe, distill_teacher=dense, **QUICK
    )
    assert not np.allclose(logits(models.load_model(alone)), logits(models.load_model(taught)))


def test_autocast_steps_aside_during_qat_and_evaluation(dense: Checkpoint) -> None:
    switch = trainer.RecipeTrainer.__new__(trainer.RecipeTrainer)
    switch.autocast, switch.model = True, torch.nn.Linear(2, 2)
    switch.qat_start = helpers.load_recipe("minilm-6layers_prune80_quant").quantization_start
    switch.args = type("Args", (), {"device": torch.device("cpu")})
    seen = {}
    for epoch in (2.9, 3.0):
        switch.state = type("State", (), {"epoch": epoch})
        with switch.autocast_smart_context_manager():
            seen[epoch] = switch.model(torch.ones(1, 2)).dtype
    switch.model.eval()
    with switch.autocast_smart_context_manager():
        seen["eval"] = switch.model(torch.ones(1, 2)).dtype
    assert seen == {2.9: torch.bfloat16, 3.0: torch.float32, "eval": torch.float32}


def test_bf16_is_used_where_it_was_measured_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU may have the instructions and be slower with them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flag, gain, expected in ((True, 2.0, True), (True, 0.6, False), (False, 2.0, False)):
        monkeypatch.setattr(trainer.environment, "machine", lambda flag=flag: {"bf16": flag})
        monkeypatch.setattr(trainer, "bf16_gain", lambda gain=gain: gain)
        assert trainer.default_bf16.__wrapped__() is expected
    monkeypatch.undo()
    # A CPU without the instructions emulates them, fifty times slower.
    assert 0.001 < trainer.bf16_gain() < 20


def test_a_reader_sees_a_bar_and_a_line_an_epoch(
    tiny_task: Task, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Transformers would show neither, since the helpers quiet its log."""
    shown = {"per_device_train_batch_size": 8, "num_train_epochs": 2}
    helpers.fine_tune(tiny_task, tiny_model, tmp_path / "shown", **shown)
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert "validation loss" in lines[0]
    assert "16/16" in output.err
    assert "accuracy" in lines[1]
    assert "validation:" not in output.err  # so few rows are answered at once


def test_a_long_validation_has_a_bar_of_its_own(
    tiny_task: Task,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQuAD's 10,570 questions take minutes on a CPU, in which the training's bar stands still."""
    monkeypatch.setattr(callbacks, "QUIET_SECONDS", 0.0)
    few = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 1, "max_steps": 1}
    helpers.fine_tune(tiny_task, tiny_model, tmp_path / "long", **few)
    rows = len(tiny_task.validation)
    assert re.search(rf"validation: .*\b\d+/{rows}\b", capsys.readouterr().err)


def test_the_learning_rate_is_the_recipes(pruned: Checkpoint) -> None:
    """Without `compat.share_learning_rate` the log repeats the Trainer's constant."""
    logged = [row["learning_rate"] for row in pruned.run["history"] if "learning_rate" in row]
    assert logged[0] > logged[-1]
    assert max(logged) < 4e-4
    planned = helpers.load_recipe("minilm-6layers_prune80", num_epochs=4).schedule()
    last = [row for row in pruned.run["history"] if "learning_rate" in row][-1]
    nearest = planned.learning_rate[(planned.epoch - last["epoch"]).abs().idxmin()]
    assert abs(last["learning_rate"] - nearest) < 2e-5
