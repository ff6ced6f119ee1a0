"""Labels as numbers: classes, sets of classes or scores, and what cannot be any of them refused."""

import ast
import math
import re
from typing import TYPE_CHECKING

from helpers.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
# The tsv files of multi-label sets write several numbers into one cell.
DELIMITER = ","
MOST_CLASSES = 1000
YES_OR_NO = {"0", "1", "0.0", "1.0", "False", "True"}
# Numbers as files write them, blanks around them included.
WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
NUMBER = re.compile(
    r"\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?)\s*", re.IGNORECASE
)

# As pandas writes a list into a csv.
LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
# As NumPy writes one, without commas, which Python would read as one long word.
NO_COMMA = re.compile(r"""['"]\s+['"]""")

Numbered = tuple[list[str], list, list]


def problem_type(train: "Dataset", label: str) -> str:
    """Return what a label column looks like: lists, fractions, or one class a row."""
    values = train[label]
    if any(isinstance(value, list | tuple) for value in values) or all_written_lists(values):
        return MULTI_LABEL
    numbers = as_numbers(_known(values))
    if any(isinstance(number, float) and not number.is_integer() for number in numbers):
        return REGRESSION
    return SINGLE_LABEL


def all_written_lists(values: list) -> bool:
    """Say whether all cells of a csv that are not empty hold a list, written out."""
    cells = [value for value in _known(values) if str(value).strip()]
    return bool(cells) and all(isinstance(cell, str) and LIST.fullmatch(cell) for cell in cells)


def read_labels(
    train: "Dataset", validation: "Dataset", label: str, kind: str, names: list[str] | None = None
) -> Numbered:
    """Return the names of the labels, and the numbers of train and validation.

    Args:
        train: rows that define which labels there are.
        validation: rows that may hold no others.
        label: the column.
        kind: SINGLE_LABEL (an int a row), MULTI_LABEL (a list of int) or REGRESSION (a float).
        names: labels by number, where the data does not say them itself.

    Raises:
        UserError: rows without a label, labels of another kind, or unknown in train. A multi-label
            row may have no label (an empty list or cell), but no gap (null).
    """
    readers: dict[str, Callable[..., Numbered]] = {
        SINGLE_LABEL: one_class,
        MULTI_LABEL: several_classes,
        REGRESSION: scores,
    }
    if kind not in readers:
        raise UserError(f"--problem_type {kind!r}: expected one of {', '.join(readers)}.")
    for split, where in ((train, "train"), (validation, "validation")):
        if kind != MULTI_LABEL:
            refuse_lists(split[label], label, where, kind)
        refuse_missing(split[label], label, where, kind)
    return readers[kind](train, validation, label, names)


def _known(values: list) -> list:
    return [value for value in values if value is not None and value == value]


def as_numbers(values: list) -> list:
    """Return texts as numbers where all of them are some: a csv holds nothing but texts."""
    if not all(isinstance(value, str) and NUMBER.fullmatch(value) for value in values):
        return values
    return [int(value) if WHOLE.fullmatch(value) else float(value) for value in values]


def refuse_lists(labels: list, column: str, split: str, kind: str) -> None:
    """Refuse rows with a list (or an object) where a kind has one class or score a row."""
    for row, value in enumerate(labels, start=1):
        if isinstance(value, list | tuple | dict):
            raise UserError(
                f"{split} row {row} has {str(value)[:40]} as {column!r}; {kind} expects one value "
                f"a row. For rows with lists pass --problem_type {MULTI_LABEL}."
            )


def refuse_missing(labels: list, column: str, split: str, kind: str) -> None:
    """Refuse rows without a label, which would become a class of their own."""
    empty = [row for row, value in enumerate(labels, start=1) if _is_missing(value, kind)]
    if not empty:
        return
    remedy = "Fill it in or take them out."
    if kind == MULTI_LABEL:
        remedy = "Fill it in, take them out, or give an empty list to rows of no class."
    raise UserError(
        f"{len(empty)} {split} rows have no {column!r} (first: row {empty[0]}). {remedy}"
    )


def _is_missing(value: object, kind: str) -> bool:
    """Say whether a label, or one in a list of them, is a gap; an empty cell may mean no class."""
    if isinstance(value, list | tuple):
        return any(_is_missing(member, SINGLE_LABEL) for member in value)
    gaps = (None,) if kind == MULTI_LABEL else (None, "")
    return value in gaps or value != value


def one_class(
    train: "Dataset", validation: "Dataset", label: str, names: list[str] | None
) -> Numbered:
    """Number the classes of the train rows."""
    number = {name: i for i, name in enumerate(class_names(train, label))}
    named = [[class_name(value) for value in split[label]] for split in (train, validation)]
    if hidden := sum(name not in number for name in named[0]):
        raise UserError(
            f"{hidden} train rows have none of the labels of {label!r}, as -1 stands for a hidden "
            "one. Take them out."
        )
    refuse_unknown(set(named[1]) - set(number))
    shown = names or getattr(train.features[label], "names", None) or list(number)
    return shown, *([number[name] for name in rows] for rows in named)


def class_name(value: object) -> str:
    """Return a class as written (01 is not 1), without the blanks around it."""
    return str(value).strip()


def class_names(train: "Dataset", label: str) -> list[str]:
    """Return the distinct labels of the train split, numbers by their size."""
    feature = train.features[label]
    if hasattr(feature, "names"):
        return [str(number) for number in range(len(feature.names))]
    values = train[label]
    size = dict(zip(map(class_name, values), as_numbers(values), strict=True))
    fractions = any(isinstance(number, float) for number in size.values())
    if len(size) <= MOST_CLASSES and not fractions:
        return sorted(size, key=lambda name: (size[name], name))
    kind = "fractions" if fractions else "values"
    raise UserError(
        f"Column {label!r} holds {len(size)} different {kind}; a classification takes up to "
        f"{MOST_CLASSES} words or whole numbers (1, not 1.0). Name another column with "
        "--label_column, or pass --problem_type regression for scores."
    )


def refuse_unknown(unknown: set[str]) -> None:
    """Refuse validation labels that training never shows."""
    if unknown:
        raise UserError(
            f"Validation holds labels that train does not: {', '.join(sorted(unknown)[:5])}. "
            "Mend the file; a model cannot learn a class it never sees."
        )


def several_classes(
    train: "Dataset", validation: "Dataset", label: str, names: list[str] | None
) -> Numbered:
    """Number sets of classes; a cell may be a list, or text with commas."""
    split_up = [[_members(value) for value in split[label]] for split in (train, validation)]
    for rows, where in zip(split_up, ("train", "validation"), strict=True):
        refuse_multi_hot(rows, label, where)
    # A label that is named twice is one.
    split_up = [[list(dict.fromkeys(row)) for row in rows] for rows in split_up]
    values = sorted({value for row in split_up[0] for value in row}, key=_order)
    feature = getattr(train.features[label], "feature", None)
    shown = names or getattr(feature, "names", None)
    if shown:
        values = [str(i) for i in range(len(shown))]
    number = {value: i for i, value in enumerate(values)}
    for rows in split_up:
        refuse_unknown({value for row in rows for value in row} - set(number))
    return shown or values, *([[number[v] for v in row] for row in rows] for rows in split_up)


def refuse_multi_hot(rows: list[list[str]], column: str, split: str) -> None:
    """Refuse a yes or no for every label, which would be read as the labels 0 and 1."""
    for row, members in enumerate(rows, start=1):
        if len(set(members)) < len(members) and set(members) <= YES_OR_NO:
            raise UserError(
                f"{split} row {row} has [{', '.join(members)}] as {column!r}, a yes or no for each "
                "label. Expected the labels that apply: [0, 2] in place of [1, 0, 1]."
            )


def _members(value: object) -> list[str]:
    if isinstance(value, str) and LIST.fullmatch(value):
        value = listed(value)
    if isinstance(value, list | tuple):
        return [str(member) for member in value]
    return [member.strip() for member in str(value).split(DELIMITER) if member.strip()]


def listed(text: str) -> list:
    """Return the list that is written out in a cell, such as "[0, 2]" or "['joy', 'fear']".

    Raises:
        UserError: it is none.
    """
    try:
        if NO_COMMA.search(text):
            raise ValueError("no comma")
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        raise UserError(
            f"{text[:60]!r} is no list of labels. Expected names between commas, or [0, 2] or "
            f"['joy', 'fear']. For a class of that name pass --problem_type {SINGLE_LABEL}."
        ) from None
    return list(found)


def _order(value: str) -> tuple[bool, int, str]:
    return (not value.isdigit(), int(value) if value.isdigit() else 0, value)


def scores(
    train: "Dataset", validation: "Dataset", label: str, names: list[str] | None
) -> Numbered:
    """Read scores as floats."""
    return names or [label], *(_floats(split, label) for split in (train, validation))


def _floats(split: "Dataset", label: str) -> list[float]:
    try:
        values = [float(value) for value in split[label]]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"Column {label!r} holds {str(error).split(': ')[-1]}, which is no number. "
            "Expected scores for a regression."
        ) from error
    if all(math.isfinite(value) for value in values):
        return values
    raise UserError(f"Column {label!r} holds infinite scores. Expected finite numbers.")
