"""Plain text: lines of a file, a column of a table, the embedded corpus or a hub set.

Lines of a text file are written to an Arrow file once and memory-mapped from there, by `datasets`:
a corpus may be larger than memory.
"""

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import sources
from helpers.catalogue import Known
from helpers.columns import TEXT_COLUMNS, find_column
from helpers.environment import check_writable, runs_folder
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

    Several files have commas between them. Without a validation file so many percent of each train
    file are held out.

    Raises:
        UserError: if they cannot be had, or hold no text.
    """
    if train_file and not validation_file:
        splits = [hold_out(rows, percentage) for rows in read_texts(train_file, text_column)]
        train, validation = zip(*splits, strict=True)
        return joined(train), joined(validation)
    if train_file:
        return (
            joined(read_texts(train_file, text_column)),
            joined(read_texts(validation_file, text_column, "validation")),
        )
    if validation_file:
        raise UserError("train_file is missing. Give --train_file too, or a name instead.")
    if name == "docs-library":
        train, validation = sources.embedded(runs_folder() / "cache")
    else:
        known = KNOWN.get(name, Known(name))
        train, validation = sources.from_hub(known.hub, known.config)
    return (
        text_rows(train, text_column, "train"),
        text_rows(validation, text_column, "validation"),
    )


def read_texts(files: str | Path, text_column: str | None, where: str = "train") -> "list[Dataset]":
    """Return the rows with text of each file; several have commas between them."""
    named = sources.several(files)
    places = [f"{where} ({file})" for file in named] if len(named) > 1 else [where]
    return [
        text_rows(read_file(file), text_column, place)
        for file, place in zip(named, places, strict=True)
    ]


def joined(parts: "Sequence[Dataset]") -> "Dataset":
    """Return the rows of all parts, without copying them."""
    from datasets import concatenate_datasets

    return concatenate_datasets([*parts])


def read_file(file: Path) -> "Dataset":
    """Read a table of rows, the contexts of a SQuAD file, or a text file of memory-mapped lines.

    Raises:
        UserError: if it is missing, empty or not UTF-8.
    """
    from datasets import Dataset, Features, Value
    from datasets.exceptions import DatasetGenerationError

    if file.suffix.lower() in TABLES:
        return contexts(file) if holds_contexts(file) else sources.read_file(file)
    if not file.is_file():
        raise UserError(f"There is no text file {file}. Check the path.")
    check_writable(runs_folder())
    facts = file.stat()
    try:
        return Dataset.from_generator(
            lines,
            features=Features({"text": Value("string")}),
            cache_dir=str(runs_folder() / "cache" / "texts"),
            # The time tells a file from what it was when it was read before.
            gen_kwargs={
                "file": str(file.resolve()),
                "at": facts.st_mtime_ns,
                "size": facts.st_size,
            },
        )
    except DatasetGenerationError as error:
        raise error.__cause__ if isinstance(error.__cause__, UserError) else error from None


def holds_contexts(file: Path) -> bool:
    """Tell whether a file is one of SQuAD's: one JSON object with a list `data`."""
    if file.suffix != ".json" or not file.is_file():
        return False
    try:
        found = json.loads(file.read_bytes())
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("data"), list)


def contexts(file: Path) -> "Dataset":
    """Return the contexts of a SQuAD file, each once."""
    from datasets import Dataset

    from helpers import squad

    return Dataset.from_dict(
        {"text": [*dict.fromkeys(q["context"] for q in squad.read_file(file))]}
    )


def lines(file: str, at: int, size: int) -> Iterator[dict[str, str]]:
    """Yield the lines of a text file as rows, one at a time.

    Raises:
        UserError: at the first byte that is not UTF-8.
    """
    begin = 0
    if size == 0:
        # `datasets` cannot write a table without rows.
        yield {"text": ""}
    with Path(file).open("rb") as stream:
        for line in stream:
            try:
                text = line.removeprefix(codecs.BOM_UTF8 if begin == 0 else b"").decode()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{file} is not UTF-8 text (byte {begin + error.start}). "
                    "Save it as UTF-8, or give csv or json."
                ) from error
            yield {"text": text.rstrip("\n")}
            begin += len(line)


def text_rows(split: "Dataset", text_column: str | None, where: str) -> "Dataset":
    """Return the rows that are not blank, under the name `text`."""
    from datasets import Features, Value

    column = find_column(split, text_column, TEXT_COLUMNS, "text_column")

    def stripped(rows: dict[str, list]) -> dict[str, list[str]]:
        texts = [str(text).strip() for text in rows[column] if text is not None]
        return {"text": [text for text in texts if text]}

    found = split.map(
        stripped,
        batched=True,
        remove_columns=split.column_names,
        features=Features({"text": Value("string")}),
    )
    if len(found):
        return found
    raise UserError(
        f"The {where} data holds no text. Expected a document, paragraph or line a row."
    )


def hold_out(rows: "Dataset", percentage: int) -> tuple["Dataset", "Dataset"]:
    """Return the rest, and the first rows: together, as neighbours are often one document."""
    count = round(len(rows) * percentage / 100)
    if 0 < count < len(rows):
        return rows.select(range(count, len(rows))), rows.select(range(count))
    raise UserError(
        f"{percentage} % of {len(rows)} lines are {count}: nothing to measure on, or to learn. "
        "Give a --validation_file, or another --validation_split_percentage."
    )
