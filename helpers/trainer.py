"""The Trainer: SparseML's on top of Hugging Face's, made quick on a CPU.

bf16 autocast where it is faster and never in QAT, fused AdamW, and batches of like length.
"""

import math
import time
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PrinterCallback, ProgressCallback
from transformers import Trainer as PlainTrainer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_utils import IntervalStrategy, SchedulerType
from transformers.utils.notebook import NotebookProgressCallback

from helpers import compat, compat_resume, environment
from helpers.callbacks import EpochLines, MasksOfEpoch, SharedLearningRate, SharedRanges
from helpers.compat_distillation import ask_once, mend_hidden_states
from helpers.compat_pruners import (
    GradientBatches,
    add_outer_products_by_elements,
    gradient_batches,
    keep_constant_masks,
    sample_as_in_training,
    select_instead_of_sorting,
)
from helpers.dropout import quicken_dropout
from helpers.errors import UserError
from helpers.requests import Request
from helpers.resuming import ResumableTrainer
from helpers.training_rows import Rows, teach

compat.quiet_sparseml()
compat.round_rows_looked_up()
mend_hidden_states()
keep_constant_masks()
sample_as_in_training()
select_instead_of_sorting()
add_outer_products_by_elements()

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


# Fused AdamW and batches of like length make a step several times faster on a CPU, together with
# bf16 autocast: `python -m helpers speed` measures it.
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 8e-5,
    "num_train_epochs": 2.0,
    "warmup_ratio": 0.05,
    "group_by_length": True,
    "optim": "adamw_torch_fused",
    "use_cpu": not torch.cuda.is_available(),
    "evaluation_strategy": "epoch",
    "save_strategy": "no",
    "logging_steps": 10,
    "report_to": "none",
    # Transformers leaves the bar out where its own log is quiet.
    "disable_tqdm": False,
}


# Below this bf16 is not worth its rounding; a Xeon without AMX lies at 0.5.
BF16_GAIN = 1.2


@cache
def default_bf16() -> bool:
    """Tell whether bf16 autocast is faster here: on a GPU; on a CPU it is measured, in 0.1 s.

    A Xeon whose AMX a virtual machine hides has bf16 instructions, and is slower with them.
    """
    if torch.cuda.is_available():
        return True
    return bool(environment.machine()["bf16"]) and bf16_gain() >= BF16_GAIN


def bf16_gain(rounds: int = 7) -> float:
    """Return how many times faster a feed-forward product of MiniLM is in bf16 than in fp32."""
    fastest = {torch.float32: math.inf, torch.bfloat16: math.inf}
    sizes = (1024, 384), (384, 1536)
    operands = {kind: [torch.ones(size, dtype=kind) for size in sizes] for kind in fastest}
    for _ in range(rounds):
        for kind, (tokens, weights) in operands.items():
            began = time.perf_counter()
            tokens @ weights
            fastest[kind] = min(fastest[kind], time.perf_counter() - began)
    return fastest[torch.float32] / fastest[torch.bfloat16]


class RecipeTrainer(ResumableTrainer):
    """SparseML's Trainer with bf16 autocast that steps aside during evaluation and QAT.

    bf16's own rounding comes close to an int8 step, so under it QAT would learn two roundings where
    the engine does one.
    """

    def __init__(self, *, autocast: bool, qat_start: float | None, **kwargs: Any) -> None:
        self.autocast = autocast
        self.qat_start = math.inf if qat_start is None else qat_start
        super().__init__(**kwargs)
        taught = isinstance(self.teacher, nn.Module)
        self.forget_answers = ask_once(self.teacher) if taught else lambda: None

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer, whose steps drive the recipe."""
        super().create_optimizer()
        compat_resume.count_updates(self)
        return self.optimizer

    def autocast_smart_context_manager(
        self, cache_enabled: bool | None = True
    ) -> "AbstractContextManager":
        """Return the context of one forward pass; the Trainer asks for it at every step."""
        # Not `manager.qat_active`: that is true a whole epoch before QAT starts.
        quantizing = (self.state.epoch or 0.0) >= self.qat_start
        if not self.model.training or quantizing:
            return nullcontext()
        return self.precision(cache_enabled)

    def precision(self, cache_enabled: bool | None = True) -> "AbstractContextManager":
        """Return the context of what training computes: bf16 autocast, or nothing special."""
        if not self.autocast:
            return nullcontext()
        return torch.autocast(self.args.device.type, torch.bfloat16, cache_enabled=cache_enabled)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # noqa: ANN401 - the Trainer's
        """Measure; refuse to choose the best model, or the rate, by a metric that there is not."""
        found = super().evaluate(*args, **kwargs)
        names = [name.removeprefix("eval_") for name in found]
        chosen = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if chosen and chosen not in names and self.asks_for_best():
            raise UserError(
                f"--metric_for_best_model {chosen} is none of this task's. "
                f"Expected one of {', '.join(names)}."
            )
        return found

    def asks_for_best(self) -> bool:
        """Tell whether anything looks at the metric: each checkpoint notes the best one so far."""
        saves = self.args.save_strategy != IntervalStrategy.NO
        return saves or self.args.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, SequenceClassifierOutput]:
        """Leave the teacher out of evaluation, so that `eval_loss` compares between runs."""
        if model.training:
            self.forget_answers()
            return super().compute_loss(model, inputs, return_outputs)
        known = {k: v for k, v in inputs.items() if k in self._model_signature_columns}
        return PlainTrainer.compute_loss(self, model, known, return_outputs)

    def _data_loader_builder(self, kwargs: dict[str, Any] | None = None) -> GradientBatches:
        """Give a pruner that asks for gradients its batches; SparseML's own builder breaks."""
        return GradientBatches(gradient_batches(self, kwargs), self.precision)

    def log_model_sparsification(self) -> None:
        """Say nothing: the zeros are counted by our own check, not by a log line."""


def make_trainer(
    folder: Path, asked: Request, network: torch.nn.Module, rows: Rows, bf16: bool = False
) -> RecipeTrainer:
    """Wire task, network, recipe and teacher into the Trainer."""
    task, recipe, args = asked.task, asked.recipe, asked.args
    compat.switch_off_autocast(args)
    collator = task.collator(rows.tokenizer)
    live_teacher, train = teach(asked.teacher, rows.train, task, recipe, collator, args)
    quicken_dropout(network)
    trainer = RecipeTrainer(
        autocast=bf16,
        qat_start=recipe.quantization_start if recipe else None,
        model=network,
        # No recipe lies there: the structure of earlier stages is already in the network.
        model_state_path=compat.absolute(folder),
        recipe=recipe.text if recipe else None,
        teacher=live_teacher or "disable",
        args=args,
        train_dataset=train,
        eval_dataset=rows.measured,
        tokenizer=rows.tokenizer,
        data_collator=collator,
        callbacks=[SharedLearningRate(), SharedRanges(), MasksOfEpoch(collator)],
        compute_metrics=lambda answer: task.metrics(answer.predictions, rows.references),
        preprocess_logits_for_metrics=task.reduce_outputs,
    )
    if recipe:
        compat.keep_run_length(trainer.args, recipe.num_epochs)
    show_epochs(trainer)
    return trainer


def show_epochs(trainer: RecipeTrainer) -> None:
    """Show one bar and one line an epoch, where every logged loss is printed as a dictionary."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(NotebookProgressCallback)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(EpochLines())
