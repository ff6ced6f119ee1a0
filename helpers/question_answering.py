"""Question answering: the answer is a piece of the context, found by its start and its end.

A context longer than the model reads is cut into windows that overlap, so that each answer stands
whole in one of them (`windows.py`); the answers of all windows compete (`answers.py`).
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from helpers import answers, sources, squad, tiers, windows
from helpers.answers import Predictions, Window
from helpers.environment import runs_folder
from helpers.errors import UserError
from helpers.tasks import SAMPLING_SEED, Task, check_length

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Columns of evaluation features that are for scoring; the model does not take them.
SCORING_COLUMNS = ("example_id", "offset_mapping", "passage", "answers")
# Fields of the task that decide how a checkpoint is asked.
SETTINGS = (
    "max_seq_length",
    "doc_stride",
    "max_answer_length",
    "n_best_size",
    "version_2_with_negative",
    "null_score_diff_threshold",
)
SQUAD_HUB = "rajpurkar/squad"
SQUAD_TRAIN = (
    "squad/train-part-v1.1.json",
    "squadshifts/new_wiki_v1.0.json",
    "squadshifts/amazon_reviews_v1.0.json",
)
SQUAD_VALIDATION = "squad/dev-v1.1.json"


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """Extractive question answering as in SQuAD.

    Attributes:
        train: the columns of `squad.COLUMNS`.
        validation: the same.
        labels: empty; the two outputs are the start and the end of the answer.
        max_seq_length: tokens of a window: question, its part of the context, special ones.
        doc_stride: tokens that two neighbouring windows of a context share.
        max_answer_length: most tokens of an answer.
        n_best_size: answers listed for a question.
        version_2_with_negative: whether a question may have no answer (SQuAD v2).
        null_score_diff_threshold: how much better "no answer" must score than the best answer.
    """

    doc_stride: int = 128
    max_answer_length: int = 30
    n_best_size: int = 20
    version_2_with_negative: bool = False
    null_score_diff_threshold: float = 0.0

    head: ClassVar[str] = "QuestionAnswering"
    outputs: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    main_metric: ClassVar[str] = "f1"
    # Its answers are two numbers a token, and windows differ in tokens.
    records_teacher: ClassVar[bool] = False
    numbered: ClassVar[str] = ""
    texts: ClassVar[tuple[str, ...]] = ("question", "context")

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        smallest = {"doc_stride": 0, "max_answer_length": 1, "n_best_size": 1}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"{name} is {getattr(self, name)}; it must be {least} or more. Mend --{name}."
                )

    @property
    def settings(self) -> dict[str, Any]:
        """The fields a checkpoint must keep to be asked again in the same way."""
        return {name: getattr(self, name) for name in SETTINGS}

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over rows and settings, since windows and answers depend on both."""
        return hashlib.sha256(f"{super().fingerprint} {self.settings}".encode()).hexdigest()

    @property
    def config(self) -> dict[str, Any]:
        """What the model's config must say: two outputs a token."""
        return {"num_labels": 2}

    def sample(self, rows: int = 6) -> pd.DataFrame:
        """Return a few training questions, their contexts, and the first right answer."""
        picked = self.train.shuffle(seed=SAMPLING_SEED).select(range(min(rows, len(self.train))))
        first = [next(iter(gold["text"]), "") for gold in picked["answers"]]
        return pd.DataFrame(
            {"question": picked["question"], "context": picked["context"], "answer": first}
        )

    def encode(self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset") -> "Dataset":
        """Turn questions into windows (unpadded) for training; one row a window.

        A row has the model's inputs, `length`, and `start_positions` and `end_positions`, the
        tokens of the first answer; 0, where [CLS] stands, if the window does not hold all of it.

        Raises:
            UserError: if `max_seq_length` is more than the model takes, if `doc_stride` leaves
                no room to move a window on, or if the tokenizer cannot tell characters.
        """
        return self._windows(tokenizer, split, scored=False)

    def encode_validation(
        self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset"
    ) -> "Dataset":
        """Do the same as `encode`, and add `SCORING_COLUMNS`, from which `references` reads."""
        return self._windows(tokenizer, split, scored=True)

    def _windows(
        self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset", *, scored: bool
    ) -> "Dataset":
        check_length(self.max_seq_length, tokenizer.model_max_length)
        return windows.encode(split, tokenizer, self.max_seq_length, self.doc_stride, scored=scored)

    def references(self, features: "Dataset") -> list[Window]:
        """Return what scoring needs of each window, in the order of `features`."""
        return [
            Window(
                row["example_id"],
                np.array(row["offset_mapping"], dtype=np.int64),
                row["passage"],
                tuple(row["answers"]["text"]),
            )
            for row in features.select_columns(list(SCORING_COLUMNS))
        ]

    def predictions(
        self, outputs: tuple[np.ndarray, np.ndarray], references: list[Window]
    ) -> Predictions:
        """Return answers, n-best lists and, for SQuAD v2, the odds of "no answer".

        Args:
            outputs: start and end logits, each [windows, tokens]; padding at the right is ignored.
            references: the windows, in the same order.
        """
        negative = self.version_2_with_negative
        return answers.predict(
            outputs,
            references,
            n_best=self.n_best_size,
            longest=self.max_answer_length,
            null_threshold=self.null_score_diff_threshold if negative else None,
        )

    def write_answers(
        self, folder: Path, outputs: tuple[np.ndarray, np.ndarray], references: list[Window]
    ) -> None:
        """Write the files that Transformers' run_qa writes, under its names."""
        answers.write_predictions(folder, self.predictions(outputs, references), "eval_")

    def decided(self, outputs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return all logits [windows, 2 * tokens]: which span wins hangs on many of them."""
        return np.concatenate(outputs, axis=1)

    def metrics(
        self, outputs: tuple[np.ndarray, np.ndarray], references: list[Window]
    ) -> dict[str, float]:
        """Return `f1` and `exact_match` over questions, 0 to 1 where SQuAD's scripts say percent.

        With `version_2_with_negative` also `HasAns_f1`, `HasAns_exact`, `NoAns_f1` and
        `NoAns_exact`, as far as there are such questions.
        """
        return answers.score(
            self.predictions(outputs, references).texts,
            {window.question: window.answers for window in references},
            version_2_with_negative=self.version_2_with_negative,
        )


def load_question_answering(
    name: str = "docs-qa",
    *,
    train_files: str | Path | Sequence[str | Path] | None = None,
    validation_file: str | Path | None = None,
    max_seq_length: int = 384,
    doc_stride: int = 128,
    max_answer_length: int = 30,
    n_best_size: int = 20,
    version_2_with_negative: bool = False,
    null_score_diff_threshold: float = 0.0,
    on_bad_answers: squad.OnBadAnswers = "stop",
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    tier: tiers.Tier | None = None,
) -> QuestionAnswering:
    """Load questions by name or from files, at the size of the tier.

    Args:
        name: 'docs-qa' (embedded), 'squad', or a hub data set; a title when files are given.
            'squad' is read from the folder TUTORIAL_DATA_DIR names, else from the hub.
        train_files: json or jsonl, one or several that are joined; see `squad.read_questions`.
        validation_file: one more; required with `train_files`.
        max_seq_length: tokens of a window.
        doc_stride: tokens that neighbouring windows share.
        max_answer_length: most tokens of an answer.
        n_best_size: answers listed for a question.
        version_2_with_negative: whether a question may have no answer.
        null_score_diff_threshold: how much better "no answer" must score than the best answer.
        on_bad_answers: 'stop' or 'drop'; see `squad.checked`.
        max_train_samples: most training questions; the tier's number if None.
        max_eval_samples: most validation questions; likewise.
        tier: sizes; the current tier if None.

    Raises:
        UserError: for anything about the data that would only fail, or mislead, later on.
    """
    tier = tier or tiers.current()
    checks = {
        "version_2_with_negative": version_2_with_negative,
        "on_bad_answers": on_bad_answers,
    }
    train, validation = _parts(name, train_files, validation_file, checks)
    task = QuestionAnswering(
        name,
        train,
        validation,
        [],
        max_seq_length,
        doc_stride=doc_stride,
        max_answer_length=max_answer_length,
        n_best_size=n_best_size,
        version_2_with_negative=version_2_with_negative,
        null_score_diff_threshold=null_score_diff_threshold,
    )
    return task.shortened(
        max_train_samples or tier.train_examples, max_eval_samples or tier.validation_examples
    )


def _parts(
    name: str,
    train_files: str | Path | Sequence[str | Path] | None,
    validation_file: str | Path | None,
    checks: dict[str, Any],
) -> tuple["Dataset", "Dataset"]:
    if not train_files and not validation_file:
        if name == "docs-qa":
            from helpers.docs_qa import docs_qa

            splits = docs_qa(runs_folder() / "cache")
            return splits["train"], splits["validation"]
        home = os.environ.get("TUTORIAL_DATA_DIR")
        if name != "squad" or not home:
            return _from_hub(SQUAD_HUB if name == "squad" else name, checks)
        train_files = [Path(home) / file for file in SQUAD_TRAIN]
        validation_file = Path(home) / SQUAD_VALIDATION
    if not train_files or not validation_file:
        missing = "validation_file" if train_files else "train_file"
        raise UserError(
            f"{missing} is missing. Give both --train_file and --validation_file, "
            "since every step measures on questions not trained on."
        )
    train = squad.read_questions(train_files, "train", **checks)
    return train, squad.read_questions(validation_file, "validation", **checks)


def _from_hub(name: str, checks: dict[str, Any]) -> tuple["Dataset", "Dataset"]:
    train, validation = sources.from_hub(name)
    return (
        squad.from_hub_rows(train, "train", name, **checks),
        squad.from_hub_rows(validation, "validation", name, **checks),
    )
