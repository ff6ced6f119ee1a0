"""Fine-tune a model that tags every word, with or without a recipe, and export it."""

from dataclasses import dataclass

from helpers.commands.arguments import DataArguments, flag
from helpers.commands.running import run
from helpers.token_tasks import TokenClassification, load_token_classification


@dataclass
class TokenArguments(DataArguments):
    """Which sentences, with which tags."""

    task_name: str = flag("ner", "what the tags are; the embedded and known sets have names")
    text_column_name: str | None = flag(None, "column of the words, if it has no usual name")
    label_column_name: str | None = flag(None, "column of the tags, if it has no usual name")
    label_all_tokens: bool = flag(False, "train on all sub-tokens of a word, not the first only")
    on_broken_tags: str = flag("stop", "entities that do not begin with B-: 'stop' or 'keep'")

    def load(self) -> TokenClassification:
        """Return the task these flags name."""
        return load_token_classification(
            self.title("conll2003"),
            train_file=self.train_file,
            validation_file=self.validation_file,
            token_column=self.text_column_name,
            tag_column=self.label_column_name,
            max_seq_length=self.max_seq_length,
            label_all_tokens=self.label_all_tokens,
            on_broken_tags=self.on_broken_tags,
            tier=self.tier(),
        )


def main(argv: list[str]) -> int:
    """CoNLL-2003 and whatever has BIO tags."""
    return run("run_ner", TokenArguments, argv)
