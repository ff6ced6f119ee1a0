"""Fine-tune a model on a task, with or without a recipe, and prove that it did what it says.

The loop is the Hugging Face Trainer's, the recipe is run by SparseML's Trainer on top of it. What
is ours: the settings that make a CPU fast, and the checks before the first and after the last
step.
"""

import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sparseml.transformers.sparsification.training_args import TrainingArguments
from transformers import set_seed

from helpers import compat, environment, models, sparsity, stops, structure
from helpers.errors import ProofError, UserError
from helpers.requests import check_request, describe_request, reuse, taught
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.trainer import DEFAULTS, RecipeTrainer, default_bf16, make_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from helpers.recipes import Recipe

# Two forward passes of the same weights on one machine differ by rounding only.
LOGITS_TOLERANCE = 1e-4
# Weights, optimizer state and the copy beside the final place.
DISK_NEEDED = 500 * 2**20


def fine_tune(
    task: Task,
    model: str | Path | Checkpoint = "minilm",
    output_dir: Path | str = "runs/model",
    *,
    recipe: "Recipe | None" = None,
    distill_teacher: Checkpoint | None = None,
    distill_hardness: float | None = None,
    distill_temperature: float | None = None,
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
        distill_teacher: a dense checkpoint of the same task whose answers are imitated.
        distill_hardness: weight of the teacher against the labels, 0 to 1; 1.0 if None.
        distill_temperature: softening of both sets of answers; 2.0 if None.
        bf16: autocast outside QAT; None for "where it is faster", which is measured.
        overwrite: replace what `output_dir` holds.
        args: Hugging Face TrainingArguments, all of them; this project's `DEFAULTS` if None.
        **settings: or single ones, by name.

    Raises:
        UserError: input that cannot work, before anything is trained.
        ProofError: training that did not do what the recipe promises; nothing is written.
    """
    environment.check_python()
    environment.check_packages()
    output_dir = Path(output_dir).resolve()
    recipe = taught(recipe, distill_teacher, distill_hardness, distill_temperature)
    args = args or TrainingArguments(output_dir=str(output_dir), **{**DEFAULTS, **settings})
    args.output_dir = compat.absolute(output_dir.with_name(f".{output_dir.name}.partial"))
    args.num_train_epochs = recipe.num_epochs if recipe else args.num_train_epochs
    bf16 = (args.bf16 or None) if bf16 is None else bf16
    # Autocast is ours to switch (see RecipeTrainer); the Trainer's own would stay on during QAT.
    args.bf16 = False
    request = describe_request(task, model, recipe, distill_teacher, args, bf16)
    if not overwrite and (found := reuse(output_dir, request)):
        return found
    check_request(model, recipe, distill_teacher, task)
    environment.check_disk(output_dir, DISK_NEEDED)
    with stops.writing(output_dir, overwrite=overwrite) as folder:
        autocast = default_bf16() if bf16 is None else bf16
        run = train_into(folder, task, model, recipe, distill_teacher, args, autocast)
        stops.write_note(folder, "run.json", {**run, "request": request})
    return Checkpoint.load(output_dir)


def train_into(
    folder: Path,
    task: Task,
    start: str | Path | Checkpoint,
    recipe: "Recipe | None",
    teacher: Checkpoint | None,
    args: TrainingArguments,
    bf16: bool,
) -> dict[str, Any]:
    """Train, check, and save into `folder`; return the content of `run.json`."""
    set_seed(args.seed)
    tokenizer = models.load_tokenizer(tokenizer_source(start))
    network = build(start, task)
    promised = promises(recipe, network)
    before = sparsity.sparse_parameters(network)
    trainer = make_trainer(folder, task, network, tokenizer, recipe, teacher, args, bf16)
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=False)
    minutes = (time.monotonic() - began) / 60
    logits, labels = trainer.predict(trainer.eval_dataset)[:2]
    sparsity.check_sparsity(sparsity.parameter_sparsity(network, list(promised)), promised)
    sparsity.check_zeros_kept(before, sparsity.parameter_sparsity(network, list(before)))
    quantized = sparsity.quantized_modules(network)
    check_quantized(recipe, len(quantized))
    save(folder, network, tokenizer, recipe, start, bool(len(quantized)))
    check_reload(folder, network, trainer)
    return {
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "task": task.name,
        "labels": task.labels,
        "max_seq_length": task.max_seq_length,
        "metrics": task.metrics(logits, labels),
        "rows": {"train": len(task.train), "validation": len(task.validation)},
        "recipe": recipe.name if recipe else None,
        "quantized_modules": len(quantized),
        "minutes": round(minutes, 2),
        "steps": trainer.state.global_step,
        "bf16": bf16,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "history": trainer.state.log_history,
        **environment.describe(),
    }


def tokenizer_source(start: str | Path | Checkpoint) -> str:
    """Return where the tokenizer of a starting point lies."""
    return str(start.folder) if isinstance(start, Checkpoint) else models.resolve_model(start)


def build(start: str | Path | Checkpoint, task: Task) -> torch.nn.Module:
    """Return the network to train: a checkpoint's own, or an encoder with a new head."""
    if not isinstance(start, Checkpoint):
        return models.new_classifier(start, task.labels)
    if start.run["labels"] != task.labels:
        raise UserError(
            f"{start.name} was fine-tuned for {start.run['labels'][:4]}, the task asks for "
            f"{task.labels[:4]}. Start from a checkpoint of this task, or from a plain model."
        )
    return models.load_model(start)


def promises(recipe: "Recipe | None", network: torch.nn.Module) -> dict[str, float]:
    """Return parameter name to promised final sparsity; refuses a recipe that does not fit."""
    if recipe is None:
        return {}
    from helpers.recipes import check_against

    matched = check_against(recipe, network)
    promised = {}
    for pattern, target in recipe.pruning_targets().items():
        if not target.per_matrix:
            continue  # A global recipe promises a share of all matrices together, not of each.
        promised |= dict.fromkeys(matched[pattern], target.final_sparsity)
    return promised


def check_quantized(recipe: "Recipe | None", modules: int) -> None:
    """Hold a recipe with QAT to having quantized something."""
    if recipe is None or not recipe.has_quantization or modules:
        return
    raise ProofError(
        "quantization",
        "modules that compute in int8",
        "none",
        "QAT never started: its start_epoch lies at or after the last epoch.",
    )


def save(
    folder: Path,
    network: torch.nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    recipe: "Recipe | None",
    start: str | Path | Checkpoint,
    quantized: bool,
) -> None:
    """Write weights, config, tokenizer and the recipes of all stages so far."""
    models.save_model(network, folder, quantized=quantized)
    tokenizer.save_pretrained(folder)
    previous = start.recipe_file if isinstance(start, Checkpoint) else None
    if recipe:
        structure.write_recipe(previous, recipe.text, folder / "recipe.yaml")
    elif previous:
        (folder / "recipe.yaml").write_text(previous.read_text())


def check_reload(folder: Path, network: torch.nn.Module, trainer: RecipeTrainer) -> None:
    """Load what was saved and compare its logits with the trained network's.

    Raises:
        ProofError: if the stored checkpoint is another model than the one that was trained.
    """
    rows = trainer.eval_dataset.select(range(min(16, len(trainer.eval_dataset))))
    batch = next(iter(trainer.get_eval_dataloader(rows)))
    inputs = {k: v.cpu() for k, v in batch.items() if k not in ("labels", "length")}
    reloaded = models.load_model(Checkpoint(folder, {}))
    with torch.no_grad():
        trained = network.cpu().eval()(**inputs).logits.numpy()
        stored = reloaded(**inputs).logits.numpy()
    difference = float(np.abs(trained - stored).max())
    if difference <= LOGITS_TOLERANCE:
        return
    raise ProofError(
        "reload",
        f"logits within {LOGITS_TOLERANCE} of the trained model's",
        f"a difference of {difference:.4f}",
        "The files do not hold what was trained; nothing was written.",
    )
