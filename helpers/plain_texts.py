"""Plain text: lines of a file, a column of a table, the embedded corpus or a hub set."""

from pathlib import Path
from typing import TYPE_CHECKING

from helpers import sources
from helpers.catalogue import Known
from helpers.columns import TEXT_COLUMNS, find_column
from helpers.environment import runs_folder
from helpers.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

KNOWN = {
    "wikitext2": Known("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "wikitext103": Known("Salesforce/wikitext", "wikitext-103-raw-v1"),
}
TABLES = (".csv", ".tsv", ".json", ".jsonl")


def read_splits(
    name: str,
    train_file: str | Path | None,
    validation_file: str | Path | None,
    text_column: str | None,
    percentage: int,
) -> tuple["Dataset", "Dataset"]:
    """Return train and validation rows with `text`, from files, the embedded corpus or the hub.

    Without a validation file so many percent of the train file are held out.

    Raises:
        UserError: if they cannot be had, or hold no text.
    """
    if train_file and not validation_file:
        return hold_out(text_rows(read_file(Path(train_file)), text_column, "train"), percentage)
    if train_file:
        train, validation = read_file(Path(train_file)), read_file(Path(validation_file))
    elif validation_file:
        raise UserError("train_file is missing. Give --train_file too, or a name instead.")
    elif name == "docs-library":
        train, validation = sources.embedded(runs_folder() / "cache")
    else:
        known = KNOWN.get(name, Known(name))
        train, validation = sources.from_hub(known.hub, known.config)
    return (
        text_rows(train, text_column, "train"),
        text_rows(validation, text_column, "validation"),
    )


def read_file(file: Path) -> "Dataset":
    """Read a table of rows, or a text file of lines.

    Raises:
        UserError: if it is missing, empty or not UTF-8.
    """
    from datasets import Dataset

    if file.suffix in TABLES:
        return sources.read_file(file)
    if not file.is_file():
        raise UserError(f"There is no text file {file}. Check the path.")
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8 text (byte {error.start}). Save it as UTF-8, or give csv or json."
        ) from error
    return Dataset.from_dict({"text": lines})


def text_rows(split: "Dataset", text_column: str | None, where: str) -> "Dataset":
    """Return the rows that are not blank, under the name `text`."""
    from datasets import Dataset

    column = find_column(split, text_column, TEXT_COLUMNS, "text_column")
    found = [str(text).strip() for text in split[column] if text is not None]
    found = [text for text in found if text]
    if not found:
        raise UserError(
            f"The {where} data holds no text. Expected a document, paragraph or line a row."
        )
    return Dataset.from_dict({"text": found})


def hold_out(rows: "Dataset", percentage: int) -> tuple["Dataset", "Dataset"]:
    """Return the rest, and the first rows: together, as neighbours are often one document."""
    count = round(len(rows) * percentage / 100)
    if 0 < count < len(rows):
        return rows.select(range(count, len(rows))), rows.select(range(count))
    raise UserError(
        f"{percentage} % of {len(rows)} lines are {count}: nothing to measure on, or to learn. "
        "Give a --validation_file, or another --validation_split_percentage."
    )
