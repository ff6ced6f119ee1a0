"""Prune an encoder on plain text, without labels, as a start for any task."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.commands.arguments import DataArguments, ModelArguments, flag
from helpers.commands.running import run, starting_point
from helpers.errors import UserError

if TYPE_CHECKING:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    from helpers.upstream import Upstream

RECIPE = "minilm-6layers_upstream80"


@dataclass
class UpstreamArguments(DataArguments):
    """Which texts."""

    text_column: str | None = flag(None, "column of the texts, if it has no usual name")
    validation_split_percentage: int = flag(5, "held out where no validation file is given")

    def load_for(self, model: ModelArguments, args: "TrainingArguments") -> "Upstream":
        """Return the texts as the dense model sees them; it is also the teacher."""
        from helpers.upstream import dense_of, load_upstream

        if args.distill_teacher == "disable":
            raise UserError(
                "--distill_teacher disable leaves nothing to learn: there are no labels. "
                "Name a dense model, or leave the flag away."
            )
        named = args.distill_teacher if args.distill_teacher != "self" else None
        args.distill_teacher = named or dense_of(starting_point(model.model_name_or_path))
        return load_upstream(
            self.title("docs-library"),
            dense=args.distill_teacher,
            train_file=self.train_file,
            validation_file=self.validation_file,
            text_column=self.text_column,
            validation_split_percentage=self.validation_split_percentage,
            max_seq_length=self.max_seq_length,
            tier=self.tier(),
        )


def main(argv: list[str]) -> int:
    """Any plain text; the recipe for 80 % if none is named."""
    return run("sparsify_upstream", UpstreamArguments, argv, recipe=RECIPE)
