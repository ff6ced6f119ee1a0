"""Fine-tune a model on a task, with or without a recipe, and prove that it did what it says.

The loop is the Hugging Face Trainer's, the recipe is run by SparseML's Trainer on top of it. What
is ours: the settings that make a CPU fast, and the checks before the first and after the last
step.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from sparseml.transformers.sparsification.training_args import TrainingArguments
from transformers import set_seed

from helpers import (
    compat,
    engine_child,
    environment,
    models,
    processes,
    resuming,
    sparsity,
    starts,
    stops,
    structure,
)
from helpers.dropout import check_dropout, set_dropout
from helpers.requests import (
    Request,
    check_answers,
    check_request,
    check_smoothing,
    check_steps,
    describe_request,
    reuse,
)
from helpers.row_order import updates_an_epoch
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.teaching import check_teaching, check_vocabulary, check_width, taught
from helpers.token_batches import check_room
from helpers.trainer import DEFAULTS, RecipeTrainer, default_bf16, make_trainer
from helpers.training_proof import check_kept, check_pruned, check_quantized, check_reload
from helpers.training_rows import Rows, encoded
from helpers.upstream import Upstream, dense_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from helpers.recipes import Recipe

# Weights, optimizer state and the copy beside the final place.
DISK_NEEDED = 500 * 2**20


def fine_tune(
    task: Task,
    model: str | Path | Checkpoint = "minilm",
    output_dir: Path | str = "runs/model",
    *,
    recipe: "Recipe | None" = None,
    distill_teacher: Checkpoint | Literal["disable"] | None = None,
    distill_hardness: float | None = None,
    distill_temperature: float | None = None,
    dropout: float | None = None,
    bf16: bool | None = None,
    overwrite: bool = False,
    args: TrainingArguments | None = None,
    **settings: Any,
) -> Checkpoint:
    """Fine-tune `model` on `task` and return the finished checkpoint.

    If `output_dir` holds a finished run of exactly this request, it is returned as it is.

    Args:
        task: what to learn and how it is scored.
        model: 'minilm', a folder, a hub name, or a checkpoint to go on from.
        output_dir: the checkpoint's folder; it appears when everything has been checked.
        recipe: what is done to the model while it trains; None for a plain fine-tune.
        distill_teacher: a dense checkpoint of the same task whose answers are imitated, and
            whose hidden states where the recipe compares them; "disable" to leave out the
            distillation that a recipe declares.
        distill_hardness: weight of the teacher against the labels, 0 to 1; 1.0 if None.
        distill_temperature: softening of both sets of answers; 2.0 if None.
        dropout: share of activations left out while training, 0 to below 1; the model's own
            if None. 0.0 suits a student that learns hidden states: noise in what is compared.
        bf16: autocast outside QAT; None for "where it is faster", which is measured.
        overwrite: replace what `output_dir` holds, and start anew where a run was killed.
        args: Hugging Face TrainingArguments, all of them; this project's `DEFAULTS` if None.
        **settings: or single ones, by name.

    Raises:
        UserError: input that cannot work, before anything is trained.
        ProofError: training that did not do what the recipe promises; nothing is written.
    """
    environment.check_python()
    environment.check_packages()
    output_dir = Path(output_dir).resolve()
    teacher = None if distill_teacher == "disable" else distill_teacher
    check_teaching(task, teacher, distill_hardness, recipe)
    check_dropout(dropout)
    recipe = taught(recipe, teacher, distill_hardness, distill_temperature, task)
    args = args or TrainingArguments(output_dir=str(output_dir), **{**DEFAULTS, **settings})
    check_smoothing(task, teacher, args.label_smoothing_factor)
    settle(args, output_dir, recipe)
    bf16 = (args.bf16 or None) if bf16 is None else bf16
    asked = Request(task, args, model, recipe, teacher, bf16, dropout)
    request = describe_request(asked)
    if not overwrite and (found := reuse(output_dir, request)):
        return found
    check_request(asked, disabled=distill_teacher == "disable")
    environment.check_disk(output_dir, DISK_NEEDED)
    stops.refuse_taken(output_dir, overwrite)
    return run_anew(asked, request, output_dir, overwrite)


def run_anew(
    asked: Request, request: dict[str, Any], output_dir: Path, overwrite: bool
) -> Checkpoint:
    """Train what is asked for, or go on with it where it was killed, and return the checkpoint."""
    task, recipe, args = asked.task, asked.recipe, asked.args
    same = resuming.same_batches(request, args)
    place = args.resume_from_checkpoint or ("false" if overwrite else None)
    resumed = resuming.place_to_resume(output_dir, place, same, recipe)
    # Before a folder is touched: what cannot be costs no checkpoint of an earlier attempt.
    set_seed(args.seed)
    student = starts.prepare(asked.model, task, recipe)
    rows = encoded(task, student.tokenizer)
    check_steps(recipe, args.max_steps, updates_an_epoch(args, len(rows.train)))
    keep = resuming.needed(resumed)
    writing = stops.writing(output_dir, overwrite=overwrite, keep=keep)
    with processes.one_writer(writing, Path(args.output_dir)) as folder:
        resuming.note_request(folder, same)
        run = train_into(folder, asked, student, rows, resumed)
        if processes.is_main():
            (folder / resuming.REQUEST).unlink()
            stops.write_note(folder, "run.json", {**run, "request": request})
    return Checkpoint.load(output_dir)


def settle(args: TrainingArguments, output_dir: Path, recipe: "Recipe | None") -> None:
    """Write into the arguments what is not theirs to say: where to write, and a recipe's epochs."""
    partial, logs = stops.partial_folder(output_dir), Path(args.logging_dir).resolve()
    if logs.is_relative_to(output_dir):  # which is not there, and has to stay empty, until the end
        args.logging_dir = compat.absolute(partial / logs.relative_to(output_dir))
    args.output_dir = compat.absolute(partial)
    args.num_train_epochs = recipe.num_epochs if recipe else args.num_train_epochs
    # For the Trainer's own checkpoints; in safetensors a masked-LM head would lack its tied weight.
    args.save_safetensors = False


def train_into(
    folder: Path, asked: Request, student: starts.Student, rows: Rows, resumed: Path | None
) -> dict[str, Any]:
    """Train, check, and save into `folder`; return the content of `run.json`."""
    task, recipe, network = asked.task, asked.recipe, student.network
    bf16 = processes.agreed(default_bf16() if asked.bf16 is None else asked.bf16)
    if asked.dropout is not None:
        set_dropout(network, asked.dropout)
    trainer = make_trainer(folder, asked, network, rows, bf16)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else False)
    minutes = trainer.clock.seconds / 60
    metrics = measure(trainer, task, rows, folder)
    check_pruned(student.promised, network)
    check_kept(student.zeros, student.promised, network)
    quantized = len(sparsity.quantized_modules(network))
    check_quantized(recipe, quantized)
    processes.check_same_everywhere(network)
    if processes.is_main():
        previous = starts.previous_recipe(student.start, task)
        save(folder, network, student.tokenizer, recipe, previous, bool(quantized))
        check_reload(folder, network, first_rows(trainer))
    return {
        **describe_run(trainer, task, recipe),
        "metrics": metrics,
        "quantized_modules": quantized,
        "minutes": round(minutes, 2),
        "resumed_at_step": resuming.step(resumed) if resumed else None,
        "bf16": bf16,
    }


def describe_run(trainer: RecipeTrainer, task: Task, recipe: "Recipe | None") -> dict[str, Any]:
    """Return what `run.json` says of a finished training, but for what was measured of it."""
    return {
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "task": task.name,
        "kind": type(task).__name__,
        "labels": task.labels,
        "data": task.origin,
        **task.settings,
        "rows": {"train": len(task.train), "validation": len(task.validation)},
        "recipe": recipe.name if recipe else None,
        "steps": trainer.state.global_step,
        "processes": trainer.args.world_size,
        "peak_memory_gb": round(engine_child.peak_memory_mb() / 2**10, 2),
        "history": trainer.state.log_history,
        **environment.describe(),
    }


def measure(trainer: RecipeTrainer, task: Task, rows: Rows, folder: Path) -> dict[str, float]:
    """Return the metrics of the network as it is; its answers go into `folder`, if it has any."""
    outputs = trainer.predict(rows.measured).predictions
    if processes.is_main():
        task.write_answers(folder, outputs, rows.references)
    return task.metrics(outputs, rows.references)


def evaluate(checkpoint: Checkpoint, task: Task, args: TrainingArguments) -> Checkpoint:
    """Measure a finished checkpoint on the task's validation rows.

    Args:
        checkpoint: one of ours, or an adopted one.
        task: a task of its kind, with its labels.
        args: `evaluation_folder(output_dir)` gets `eval_results.json` and the answers; batch size
            and the like.

    Returns:
        The checkpoint with these metrics; its folder is not changed.

    Raises:
        UserError: if it answers another question than the task asks, or if the dense model that
            it is compared with has another vocabulary or width.
    """
    check_answers(checkpoint, task, "Give the data it was trained for.")
    check_room(checkpoint, task)
    if isinstance(task, Upstream):
        dense = dense_model(task)
        check_vocabulary(dense, checkpoint)
        check_width(dense, checkpoint)
    folder = evaluation_folder(args.output_dir)
    environment.check_writable(folder)
    with stops.no_empty_folder(folder):
        network = models.load_model(checkpoint)
        rows = encoded(task.only_measured(), models.load_tokenizer(checkpoint.folder))
        trainer = make_trainer(folder, Request(task, args), network, rows)
        metrics = measure(trainer, task, rows, folder)
        if processes.is_main():
            (folder / "eval_results.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return Checkpoint(checkpoint.folder, {**checkpoint.run, "metrics": metrics})


def evaluation_folder(output_dir: Path | str) -> Path:
    """Return where an evaluation is written: below a finished run, whose own files are sealed."""
    folder = Path(output_dir).resolve()
    return folder / "evaluation" if (folder / "run.json").is_file() else folder


def save(
    folder: Path,
    network: torch.nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    recipe: "Recipe | None",
    previous: Path | None,
    quantized: bool,
) -> None:
    """Write weights, config, tokenizer and the recipes of all stages so far."""
    dropped = bool(recipe and recipe.dropped_layers)
    models.save_model(network, folder, quantized=quantized or dropped)
    tokenizer.save_pretrained(folder)
    if recipe:
        structure.write_recipe(previous, recipe.text, folder / "recipe.yaml")
    elif previous:
        (folder / "recipe.yaml").write_text(previous.read_text())


def first_rows(trainer: RecipeTrainer) -> dict[str, torch.Tensor]:
    """Return one batch of validation rows as the model takes it, without what is measured by."""
    rows = trainer.eval_dataset.select(range(min(16, len(trainer.eval_dataset))))
    batch = next(iter(trainer.get_eval_dataloader(rows)))
    return {name: value.cpu() for name, value in batch.items() if name in models.INPUTS}
