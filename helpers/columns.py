"""Columns of any name become `text`, `text_pair` and `label`, with what cannot work refused."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

TEXT_COLUMNS = ("text", "sentence", "review", "content", "document", "question", "title")
PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text", "text_pair"),
)
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "score")


def find_texts(split: "Dataset", text: str | None, pair: str | None) -> dict[str, str]:
    """Return our names, `text` and for pairs `text_pair`, to the data's.

    Raises:
        UserError: listing the columns there are.
    """
    if text is None and pair is None:
        usual = next((p for p in PAIR_COLUMNS if set(p) <= set(split.column_names)), None)
        if usual:
            return dict(zip(("text", "text_pair"), usual, strict=True))
    found = {"text": find_column(split, text, TEXT_COLUMNS, "text_column")}
    if pair is None:
        return found
    return {**found, "text_pair": find_column(split, pair, (), "text_pair_column")}


def find_column(split: "Dataset", wanted: str | None, usual: Sequence[str], flag: str) -> str:
    """Return the named column, or the first of the usual names that is there.

    Raises:
        UserError: listing the columns there are.
    """
    if wanted and wanted in split.column_names:
        return wanted
    found = next((name for name in usual if name in split.column_names), None)
    if found and not wanted:
        return found
    looked_for = wanted or " / ".join(usual)
    raise UserError(
        f"No column {looked_for}; the data has {', '.join(split.column_names)}. "
        f"Name the right one with --{flag}."
    )


def check_validation(validation: "Dataset", columns: Sequence[str]) -> None:
    """Refuse a validation split without the columns the train split was read by."""
    for column in columns:
        if column not in validation.column_names:
            raise UserError(f"The validation data has no column {column!r}, the train data has.")


def say_empty_texts(split: "Dataset", where: str) -> None:
    """Print how many rows have a label, but a text with nothing in it."""
    texts = [column for column in split.column_names if column != "label"]
    rows = zip(*(split[column] for column in texts), strict=True)
    empty = [number for number, row in enumerate(rows, start=1) if not all(row)]
    if empty:
        print(
            f"{len(empty):,} of {len(split):,} {where} rows have an empty text "
            f"(first: row {empty[0]}). They count as any other."
        )


def renamed(split: "Dataset", texts: dict[str, str], labels: Sequence[Any]) -> "Dataset":
    """Return the rows under our names: the texts, stripped, and `label`."""
    from datasets import Dataset

    found = {ours: stripped(split[theirs], theirs) for ours, theirs in texts.items()}
    return Dataset.from_dict({**found, "label": labels})


def stripped(values: Sequence[Any], column: str) -> list[str]:
    """Return the texts of a column without the blanks around them; a gap is an empty text.

    Raises:
        UserError: a row with a list, or an object.
    """
    for row, value in enumerate(values, start=1):
        if isinstance(value, list | dict):
            raise UserError(
                f"Row {row} has {str(value)[:40]} as {column!r}. Expected one text a row."
            )
    return ["" if value is None else str(value).strip() for value in values]
