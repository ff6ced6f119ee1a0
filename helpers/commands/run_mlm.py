"""Train a model to guess hidden words of plain text, with or without a recipe."""

from dataclasses import dataclass

from helpers.commands.arguments import DataArguments, flag
from helpers.commands.running import run
from helpers.masked_language import MaskedLanguageModel, load_masked_language


@dataclass
class MaskedArguments(DataArguments):
    """Which texts, and what is hidden in them."""

    text_column: str | None = flag(None, "column of the texts, if it has no usual name")
    line_by_line: bool = flag(False, "one row a line, instead of texts joined into blocks")
    mlm_probability: float = flag(0.15, "share of the tokens that have to be guessed")
    validation_split_percentage: int = flag(5, "held out where no validation file is given")

    def load(self) -> MaskedLanguageModel:
        """Return the task these flags name."""
        return load_masked_language(
            self.title("docs-library"),
            train_file=self.train_file,
            validation_file=self.validation_file,
            text_column=self.text_column,
            validation_split_percentage=self.validation_split_percentage,
            max_seq_length=self.max_seq_length,
            line_by_line=self.line_by_line,
            mlm_probability=self.mlm_probability,
            tier=self.tier(),
        )


def main(argv: list[str]) -> int:
    """Any plain text."""
    return run("run_mlm", MaskedArguments, argv)
