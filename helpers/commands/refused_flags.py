"""Flags of Transformers that are refused before anything is read or trained."""

import math
from typing import TYPE_CHECKING

from helpers.errors import UserError

if TYPE_CHECKING:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "num_train_epochs": 0,
    "seed": 0,
    "dataloader_num_workers": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "adam_epsilon": 0,
}
MOST_SEED = 2**32 - 1
# Shares; optimizer and loss break in their own words outside of these.
SHARES = ("adam_beta1", "adam_beta2", "label_smoothing_factor")
# What would go wrong in the measure, and what a person can do.
NOT_HERE = {
    "dataloader_drop_last": "it would leave rows out of the measure, too",
    "dataloader_persistent_workers": "a worker that stays would not hear of the next epoch",
    "prediction_loss_only": "metrics are what a run is about",
    "bf16_full_eval": "a model is measured as it is saved, in fp32",
    "fp16_full_eval": "a model is measured as it is saved, in fp32",
    "label_names": "the task says what its labels are called",
    "fsdp": "recipes and proofs need the whole model in each process",
    "deepspeed": "recipes and proofs need the whole model in each process",
}


def check_flags(args: "TrainingArguments") -> None:
    """Refuse flags of Transformers that would go wrong here, in silence or in a traceback.

    Raises:
        UserError: naming the flag, and what to do instead.
    """
    from transformers.integrations import get_available_reporting_integrations

    check_numbers(args)
    for name, reason in NOT_HERE.items():
        if getattr(args, name):
            raise UserError(f"--{name} is not done here: {reason}. Leave it away.")
    if args.accelerator_config.split_batches:
        raise UserError(
            "--split_batches is not done here: recipes count whole batches of each process. "
            "Leave it away, and divide --per_device_train_batch_size by the processes."
        )
    if args.push_to_hub:
        raise UserError("--push_to_hub is not done here. Upload --output_dir with huggingface-cli.")
    if unknown := sorted({*args.report_to} - {*get_available_reporting_integrations()}):
        raise UserError(
            f"--report_to {unknown[0]}: its package is not installed. Install it, or leave it away."
        )
    if args.recipe_args and not args.recipe:
        raise UserError("--recipe_args has no recipe to change. Give --recipe as well.")
    if args.do_predict:
        raise UserError(
            "--do_predict has no test file here. Give it as --validation_file, with --do_eval."
        )
    if args.load_best_model_at_end and args.recipe:
        raise UserError(
            "--load_best_model_at_end would pick a model from before the recipe ended. "
            "Leave it away; the last model is the one the recipe promises."
        )


def check_numbers(args: "TrainingArguments") -> None:
    """Refuse numbers with which a training breaks, or goes on and learns nothing."""
    for name, least in LEAST.items():
        value = getattr(args, name)
        # Not "less than": nan is neither.
        if not (value >= least and math.isfinite(value)):
            raise UserError(f"--{name} is {value}. Expected {least} or more, and finite.")
    if args.eval_accumulation_steps is not None and args.eval_accumulation_steps < 1:
        raise UserError("--eval_accumulation_steps is below 1. Expected 1 or more.")
    for name in SHARES:
        if not 0 <= getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}. Expected 0 or more, less than 1.")
    if max(args.seed, args.data_seed or 0) > MOST_SEED:
        raise UserError(f"--seed and --data_seed may be {MOST_SEED} at most.")
