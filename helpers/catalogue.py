"""Data sets a person calls by a short name: where they lie locally, and what the hub calls them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import sources
from helpers.labels import MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from datasets import Dataset

GLUE = "nyu-mll/glue"


@dataclass(frozen=True)
class Known:
    """A well-known set.

    Attributes:
        hub: its name on the Hugging Face hub.
        config: the part of it, where the hub set has several.
        train: its file below `TUTORIAL_DATA_DIR`; None if it is only on the hub.
        validation: likewise.
        problem_type: as in Transformers' configs; None for one class a row.
        label_file: names of the labels by line, below `TUTORIAL_DATA_DIR`.
    """

    hub: str
    config: str | None = None
    train: str | None = None
    validation: str | None = None
    problem_type: str | None = None
    label_file: str | None = None

    @property
    def home(self) -> Path | None:
        """The folder that TUTORIAL_DATA_DIR names, if this set can lie in it."""
        home = os.environ.get("TUTORIAL_DATA_DIR")
        return Path(home) if home and self.train else None

    def load(self) -> tuple["Dataset", "Dataset"]:
        """Return train and validation, from the local folder or the hub."""
        if self.home:
            return sources.from_files(self.home / self.train, self.home / self.validation)
        return sources.from_hub(self.hub, self.config)

    def label_names(self) -> list[str] | None:
        """Return the names of the labels in the order of their numbers, where a file has them."""
        if not self.home or not self.label_file:
            return None
        return (self.home / self.label_file).read_text("utf-8").split()


KNOWN = {
    "sst2": Known("stanfordnlp/sst2", None, "sst2/train.tsv", "sst2/validation.tsv"),
    "cola": Known(GLUE, "cola", "cola/train.tsv", "cola/dev.tsv"),
    "mrpc": Known(GLUE, "mrpc", "mrpc/train.tsv", "mrpc/test.tsv"),
    "rte": Known(GLUE, "rte", "rte/train.tsv", "rte/dev.tsv"),
    "stsb": Known(GLUE, "stsb", "stsb/train.csv", "stsb/dev.csv", REGRESSION),
    "mnli": Known(GLUE, "mnli"),
    "qnli": Known(GLUE, "qnli"),
    "qqp": Known(GLUE, "qqp"),
    "wnli": Known(GLUE, "wnli"),
    "ag_news": Known("fancyzhx/ag_news", None, "ag_news/train_part.csv", "ag_news/test.csv"),
    "rotten_tomatoes": Known(
        "cornell-movie-review-data/rotten_tomatoes",
        None,
        "rotten_tomatoes/train.csv",
        "rotten_tomatoes/validation.csv",
    ),
    "tweet_eval_emotion": Known(
        "cardiffnlp/tweet_eval",
        "emotion",
        "tweet_eval_emotion/train.csv",
        "tweet_eval_emotion/val.csv",
    ),
    "go_emotions": Known(
        "google-research-datasets/go_emotions",
        "simplified",
        "go_emotions/train.tsv",
        "go_emotions/dev.tsv",
        MULTI_LABEL,
        "go_emotions/labels.txt",
    ),
}
