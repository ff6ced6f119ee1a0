"""What the Trainer calls between steps: one learning rate, shared ranges, a line an epoch."""

from typing import Any

import torch
from sparseml.transformers.sparsification.training_args import TrainingArguments
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    DataCollator,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from helpers import compat, processes

# Answering the validation rows is silent for as long.
QUIET_SECONDS = 5.0


class SharedLearningRate(TrainerCallback):
    """Applies `compat.share_learning_rate` when the optimizer is ready."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer,
        **kwargs: Any,
    ) -> None:
        """Called by the Trainer after Accelerate has prepared the optimizer."""
        compat.share_learning_rate(optimizer)


class SharedRanges(TrainerCallback):
    """Applies `processes.average_ranges` after each step."""

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **kwargs: Any,
    ) -> None:
        """Called by the Trainer after the optimizer."""
        processes.average_ranges(model)


class MasksOfEpoch(TrainerCallback):
    """Tells a collator that masks words which epoch it is, so that each masks others."""

    def __init__(self, collator: DataCollator) -> None:
        self.collator = collator

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer before the epoch's first batch is read, after a kill too."""
        if hasattr(self.collator, "epoch"):
            self.collator.epoch = int(state.epoch)


class EpochLines(ProgressCallback):
    """A bar while it trains, and one line an epoch that stays: what a reader looks at."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar: a widget in a notebook, text elsewhere (the inherited one: always text)."""
        self.current_step = 0
        if state.is_world_process_zero:
            self.training_bar = tqdm(total=state.max_steps, desc="training", unit="step")

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: DataLoader | None = None,
        **kwargs: Any,
    ) -> None:
        """Open a second bar where answering the validation rows takes longer than a moment."""
        if eval_dataloader is None or not state.is_world_process_zero:
            return
        if self.prediction_bar is None:
            total = len(eval_dataloader)
            self.prediction_bar = tqdm(
                total=total, desc="validation", unit="batch", leave=False, delay=QUIET_SECONDS
            )
        self.prediction_bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print the validation's result; everything else is in `run.json`, under history."""
        if logs is None or "eval_loss" not in logs or not state.is_world_process_zero:
            return
        scores = [
            f"{name.removeprefix('eval_')} {value:.4f}"
            for name, value in logs.items()
            if name.startswith("eval_") and not name.endswith(("runtime", "per_second"))
        ]
        self.on_evaluate(args, state, control)  # closes its bar, or `write` would draw it once more
        tqdm.write(f"epoch {logs['epoch']:g}: validation {', '.join(scores)}")
