"""Going on with a run that was killed: which checkpoint, and the Trainer that can start from it."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sparseml.transformers.sparsification import Trainer
from sparseml.transformers.sparsification.training_args import TrainingArguments
from torch.utils.data import Sampler
from transformers import Trainer as PlainTrainer
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy

from helpers import compat_resume, processes, stops
from helpers.errors import UserError
from helpers.row_order import RowOrder

if TYPE_CHECKING:
    from helpers.recipes import Recipe

REQUEST = "request.json"
# Told apart by a number: what skips the rows that were seen has to count them in the same order.
ROW_ORDER = 2


class Clock(TrainerCallback):
    """Seconds trained so far, those before the run was killed included."""

    def __init__(self) -> None:
        self.before = 0.0
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training, those before it was killed included."""
        return self.before + time.monotonic() - self.began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start counting."""
        self.began = time.monotonic()


class GoodCheckpoints(TrainerCallback):
    """Has checkpoints written only where a run that goes on from them goes on as it would have.

    That of an epoch's last step comes after the epoch has been measured. The Trainer writes it
    before; a run that goes on from there never measures that epoch, and a rate that comes down on a
    plateau misses a turn. And none is written of a last step in the middle of an epoch, where the
    Trainer would make one step more before it looks whether it is done.
    """

    def __init__(self) -> None:
        self.put_off = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget, as SparseML does after each save, a best model from before one may be chosen."""
        if (state.epoch or 0) <= (args.best_model_after_epoch or 0):
            state.best_metric = state.best_model_checkpoint = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer when it has decided what to do after this step."""
        last = state.epoch % 1 == 0 and args.evaluation_strategy == IntervalStrategy.EPOCH
        self.put_off = control.should_save and last
        control.should_save = control.should_save and not last and not ends_within(args, state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer right after; what is to be saved is saved after measuring."""
        save = control.should_save or self.put_off
        control.should_save = save and not ends_within(args, state)


def ends_within(args: TrainingArguments, state: TrainerState) -> bool:
    """Tell whether a run is over in the middle of an epoch, and no best model is looked for."""
    over = state.global_step >= state.max_steps and state.epoch % 1 > 0
    return over and not args.load_best_model_at_end


class ResumableTrainer(Trainer):
    """SparseML's Trainer, whose checkpoints hold all that a run needs to go on."""

    def __init__(self, **kwargs: Any) -> None:
        self.clock = Clock()
        super().__init__(**kwargs)
        self.add_callback(self.clock)
        self.add_callback(GoodCheckpoints())

    def _get_train_sampler(self) -> Sampler:
        """Draw the rows in an order that a kill, or a process beside this one, leaves as it is."""
        return RowOrder(self)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # noqa: ANN401 - the Trainer's
        """Measure without drawing from what dropout draws from: a run that goes on skips this."""
        with torch.random.fork_rng():
            return super().evaluate(*args, **kwargs)

    def _generate_apply_manager_params(self, kwargs: dict[str, Any]) -> tuple[None, float]:
        """Begin every run as if from the start; `compat_resume.restore` brings it to its place."""
        return None, 0.0

    def _rotate_checkpoints(self, use_mtime: bool = False, output_dir: str | None = None) -> None:
        """Complete the new checkpoint before an old one is deleted; the Trainer's last act."""
        checkpoint = Path(output_dir) / f"checkpoint-{self.state.global_step}"
        compat_resume.write_state(self, checkpoint)
        super()._rotate_checkpoints(use_mtime, output_dir)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        """Wait: the weights fit only after the recipe has changed the structure."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load what the Trainer saved, then what SparseML would have forgotten."""
        # Not SparseML's own, which takes for granted that there is a recipe.
        PlainTrainer._load_optimizer_and_scheduler(self, checkpoint)
        if checkpoint:
            compat_resume.restore(self, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str) -> None:
        """Load random states, numpy's included."""
        with torch.serialization.safe_globals(compat_resume.NUMPY_STATE):
            super()._load_rng_state(checkpoint)


def same_batches(request: dict[str, Any], args: TrainingArguments) -> dict[str, Any]:
    """Return a request with what a run that goes on needs besides: the same batches."""
    return {
        **request,
        # Of all GPUs of a process: the Trainer takes it from the checkpoint, whatever is asked now.
        "per_device_train_batch_size": args.train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "number of processes": args.world_size,
        "order of rows": ROW_ORDER,
    }


def note_request(folder: Path, request: dict[str, Any]) -> None:
    """Write beside the checkpoints what run they belong to."""
    if processes.is_main():
        (folder / REQUEST).write_text(json.dumps(request))


def checkpoints(folder: Path) -> list[Path]:
    """Return the Trainer's checkpoints in a folder that were written to their end, oldest first."""
    whole = [file.parent for file in folder.glob(f"checkpoint-*/{compat_resume.STATE}")]
    return sorted(whole, key=step)


def step(checkpoint: Path) -> int:
    """Return the step a checkpoint was written after."""
    return int(checkpoint.name.rpartition("-")[2])


def needed(checkpoint: Path | None) -> tuple[Path, ...]:
    """Return what a run goes on with: a checkpoint, the best one before it, and its logs."""
    if checkpoint is None:
        return ()
    best = json.loads((checkpoint / TRAINER_STATE_NAME).read_text()).get("best_model_checkpoint")
    wanted = {checkpoint.name, Path(best).name} if best else {checkpoint.name}
    # Whatever is no checkpoint is logs, such as TensorBoard's.
    return tuple(
        place
        for place in checkpoint.parent.iterdir()
        if place.is_dir() and (place.name in wanted or not place.name.startswith("checkpoint-"))
    )


def place_to_resume(
    output_dir: Path, asked: str | bool | None, request: dict[str, Any], recipe: "Recipe | None"
) -> Path | None:
    """Return the checkpoint of a killed run to go on from, None to start anew.

    Args:
        output_dir: where the finished model will be.
        asked: `--resume_from_checkpoint`: a checkpoint, "true" for the last one, None for the last
            one of exactly this run, if there is one; "false" for none.
        request: what identifies this run.
        recipe: what is done to the model.

    Raises:
        UserError: if a checkpoint was asked for and the run cannot go on from it.
    """
    if str(asked).lower() == "false":
        return None
    explicit = bool(asked)
    partial = stops.partial_folder(output_dir)
    found = checkpoints(partial)
    if explicit and str(asked).lower() != "true":
        found = [checkpoint for checkpoint in found if checkpoint.name == Path(str(asked)).name]
    problem = obstacle(partial, request, recipe) if found else f"{partial} holds no such checkpoint"
    if problem is None:
        print(f"Going on from {found[-1].name} of the run that was stopped.")
        return found[-1]
    if explicit:
        raise UserError(
            f"--resume_from_checkpoint {asked}: {problem}. "
            "Leave it away to start anew; --save_strategy makes a run keep checkpoints."
        )
    if found:
        print(f"Starting anew, not from {found[-1].name}: {problem}.")
    return None


def obstacle(partial: Path, request: dict[str, Any], recipe: "Recipe | None") -> str | None:
    """Say why a killed run cannot go on, None if it can."""
    names = [modifier.name for modifier in recipe.modifiers] if recipe else []
    if lost := compat_resume.not_resumable(names):
        return f"SparseML does not save what {lost[0]} has gathered, so it would prune wrongly"
    file = partial / REQUEST
    before = json.loads(file.read_text()) if file.is_file() else {}
    # Of both, since what was not asked for is not in a request.
    changed = [key for key in {**request, **before} if before.get(key) != request.get(key)]
    return f"that run had another {', '.join(changed[:3])}" if changed else None
