"""Where rows come from: the embedded corpus, files, or the hub; all end as text and label."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from helpers.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

MOST_CLASSES = 1000


def embedded(cache: Path) -> tuple["Dataset", "Dataset"]:
    """Return train and validation of the docstring corpus, built on first use."""
    from helpers.corpus import docs_library

    splits = docs_library(cache)
    return splits["train"], splits["validation"]


def from_files(
    train: str | Path | None, validation: str | Path | None
) -> tuple["Dataset", "Dataset"]:
    """Read a pair of files; both are needed, since every step measures on unseen rows."""
    if not train or not validation:
        missing = "train_file" if not train else "validation_file"
        raise UserError(f"{missing} is missing. Give both --train_file and --validation_file.")
    return read_file(Path(train)), read_file(Path(validation))


def read_file(file: Path) -> "Dataset":
    """Read one csv, tsv, json or jsonl file.

    Raises:
        UserError: if it is missing, empty, of another kind or not parseable.
    """
    from datasets import Dataset

    if not file.is_file():
        raise UserError(f"There is no data file {file}. Check the path.")
    try:
        frame = _parse(file)
        rows = Dataset.from_pandas(frame, preserve_index=False)
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # Arrow raises these for columns of mixed types
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{file} is not a readable {file.suffix} file ({reason}). "
            "Save it as UTF-8 with one header line (csv, tsv) or one object a line (json)."
        ) from error
    if frame.empty:
        raise UserError(f"{file} holds no rows. Give a file with a header and data.")
    if not isinstance(frame.index, pd.RangeIndex):
        # Pandas takes the first column for an index then, and shifts all the others.
        raise UserError(
            f"{file}: its lines have more columns than its header. "
            "Quote texts that hold the separator, or name every column."
        )
    return rows


def _parse(file: Path) -> pd.DataFrame:
    if file.stat().st_size == 0:
        return pd.DataFrame()
    if file.suffix == ".csv":
        return pd.read_csv(file, keep_default_na=False)
    if file.suffix == ".tsv":
        # A tsv of GLUE quotes nothing, and a lone quotation mark would swallow lines.
        return pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False)
    if file.suffix in (".json", ".jsonl"):
        head = file.read_text("utf-8-sig").lstrip()[:1]
        return pd.read_json(file, lines=head != "[")
    raise UserError(f"{file.name}: a data file ends in .csv, .tsv, .json or .jsonl.")


def from_hub(name: str, validation_splits: Sequence[str]) -> tuple["Dataset", "Dataset"]:
    """Load train and the first usual validation split of a hub data set.

    Raises:
        UserError: if the hub cannot be reached or has no such set or split.
    """
    from datasets import load_dataset

    try:
        splits = load_dataset(name)
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise UserError(
            f"No data set {name!r}: it is not embedded and the Hugging Face hub did not give it "
            f"({type(error).__name__}). Use 'docs-library', --train_file/--validation_file, or "
            "set TUTORIAL_DATA_DIR to a folder that holds it."
        ) from error
    held_out = next((s for s in validation_splits if s in splits), None)
    if "train" not in splits or held_out is None:
        raise UserError(
            f"{name} has the splits {', '.join(splits)}; a 'train' and one of "
            f"{', '.join(validation_splits)} are needed."
        )
    return splits["train"], splits[held_out]


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


def number_labels(
    train: "Dataset", validation: "Dataset", text: str, label: str
) -> tuple["Dataset", "Dataset", list[str]]:
    """Bring both splits to columns `text` (str) and `label` (int), numbered by the train labels.

    Raises:
        UserError: if validation lacks a column, or holds a label that train does not have.
    """
    for column in (text, label):
        if column not in validation.column_names:
            raise UserError(f"The validation data has no column {column!r}, the train data has.")
    for split, where in ((train, "train"), (validation, "validation")):
        refuse_missing(split[label], label, where)
    names = label_names(train, label)
    unknown = sorted({str(v) for v in validation[label]} - {str(n) for n in names})
    if unknown:
        raise UserError(
            f"Validation holds labels that train does not: {', '.join(unknown[:5])}. "
            "Mend the file; a model cannot learn a class it never sees."
        )
    if hasattr(train.features[label], "names"):
        shown = train.features[label].names
    else:
        shown = [str(name) for name in names]
    number = {str(name): i for i, name in enumerate(names)}
    splits = [_renamed(split, text, label, number) for split in (train, validation)]
    return splits[0], splits[1], shown


def refuse_missing(labels: list, column: str, split: str) -> None:
    """Refuse rows without a label, which would become a class of their own."""
    empty = [i for i, value in enumerate(labels, start=1) if value in (None, "") or value != value]
    if empty:
        raise UserError(
            f"{len(empty)} {split} rows have no {column!r} (first: row {empty[0]}). "
            "Fill it in or take them out."
        )


def label_names(train: "Dataset", label: str) -> list:
    """Return the distinct labels of the train split in a stable order."""
    feature = train.features[label]
    if hasattr(feature, "names"):
        return list(range(len(feature.names)))
    names = sorted(set(train[label]), key=lambda v: (isinstance(v, str), v))
    if 2 <= len(names) <= MOST_CLASSES and not isinstance(names[0], float):
        return names
    kind = "fractions" if isinstance(names[0], float) else "values"
    raise UserError(
        f"Column {label!r} holds {len(names)} different {kind}; a classification needs 2 to "
        f"{MOST_CLASSES} words or whole numbers. Name another column with --label_column."
    )


def _renamed(split: "Dataset", text: str, label: str, number: dict[str, int]) -> "Dataset":
    from datasets import Dataset

    texts = ["" if value is None else str(value).strip() for value in split[text]]
    labels = [number[str(value)] for value in split[label]]
    return Dataset.from_dict({"text": texts, "label": labels})
