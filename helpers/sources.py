"""Where rows come from: the embedded corpus, files, or the hub."""

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from helpers.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

# Cells stay as written: 007 is no 7, and which numbers are classes or scores is told by labels.py.
AS_WRITTEN = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
VALIDATION_SPLITS = ("validation", "dev", "val", "valid", "test")


def several(files: str | Path) -> list[Path]:
    """Return the files of a list with commas in between; an existing file may have one itself."""
    if os.path.exists(files):  # noqa: PTH110 - Path raises OSError for a long list
        return [Path(files)]
    return [Path(file.strip()) for file in str(files).split(",")]


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
    name = str(frame.columns[0])
    if len(frame.columns) == 1 and (mark := next((m for m in ";\t|" if m in name), None)):
        wanted = "tabs" if file.suffix == ".tsv" else "commas"
        raise UserError(
            f"{file}: its header is one column, {name!r}. Expected {wanted} between columns, "
            f"not {mark!r}; save it so."
        )
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
        return pd.read_csv(file, **AS_WRITTEN)
    if file.suffix == ".tsv":
        # A tsv of GLUE quotes nothing, and a lone quotation mark would swallow lines.
        return pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE, **AS_WRITTEN)
    if file.suffix in (".json", ".jsonl"):
        head = file.read_text("utf-8-sig").lstrip()[:1]
        plain = {"dtype": False, "convert_dates": False, "encoding": "utf-8-sig"}
        return pd.read_json(file, lines=head != "[", **plain)
    raise UserError(f"{file.name}: a data file ends in .csv, .tsv, .json or .jsonl.")


def from_hub(name: str, config: str | None = None) -> tuple["Dataset", "Dataset"]:
    """Load train and the first usual validation split of a hub data set.

    Raises:
        UserError: if the hub cannot be reached or has no such set or split.
    """
    from datasets import load_dataset

    try:
        splits = load_dataset(name, config)
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise UserError(
            f"No data set {name!r}: it is not embedded and the Hugging Face hub did not give it "
            f"({type(error).__name__}). Give --train_file and --validation_file, or set "
            "TUTORIAL_DATA_DIR to a folder that holds it."
        ) from error
    # MNLI's validation split says with what it matches.
    held_out = next((s for s in (*VALIDATION_SPLITS, "validation_matched") if s in splits), None)
    if "train" not in splits or held_out is None:
        raise UserError(
            f"{name} has the splits {', '.join(splits)}; a 'train' and one of "
            f"{', '.join(VALIDATION_SPLITS)} are needed."
        )
    return splits["train"], splits[held_out]
