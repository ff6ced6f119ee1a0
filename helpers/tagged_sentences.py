"""Sentences with a tag for each word: CoNLL files, json rows or hub sets, checked before use."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import sources
from helpers.catalogue import Known
from helpers.columns import find_column
from helpers.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

KNOWN = {
    "conll2003": Known("eriktks/conll2003", None, "conll2003/train.txt", "conll2003/valid.txt")
}
TOKEN_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("tags", "ner_tags", "labels", "ner")
OUTSIDE = "O"
# What seqeval reads: a border (begin, inside, end, single) and a type.
TAG = re.compile(r"[BIES]-.+")
SHOWN = 3


def read_splits(
    name: str, train: str | Path | None, validation: str | Path | None
) -> tuple["Dataset", "Dataset"]:
    """Return train and validation rows from files, the data folder, or the hub.

    Raises:
        UserError: if only one file is given, or one cannot be read.
    """
    known = KNOWN.get(name, Known(name))
    if train or validation:
        if not train or not validation:
            missing = "validation_file" if train else "train_file"
            raise UserError(f"{missing} is missing. Give both --train_file and --validation_file.")
        return read_file(Path(train)), read_file(Path(validation))
    if known.home:
        return read_file(known.home / known.train), read_file(known.home / known.validation)
    return sources.from_hub(known.hub, known.config)


def read_file(file: Path) -> "Dataset":
    """Read json and jsonl as rows, and a file of any other ending as CoNLL columns."""
    if file.suffix in (".json", ".jsonl"):
        return sources.read_file(file)
    if file.suffix == ".csv":
        raise UserError(
            f"{file.name}: a csv cannot hold sentences with tags. Give json or jsonl rows, or a "
            "CoNLL file with a token and its tag a line."
        )
    return read_conll(file)


def read_conll(file: Path) -> "Dataset":
    """Read columns: one token a line, its tag in the last column, a blank line after a sentence.

    Columns are separated by tabs, or by blanks where a line has no tab. Lines that begin with
    -DOCSTART- are no sentences.

    Returns:
        Rows with `tokens` and `tags`, both lists of str.

    Raises:
        UserError: if the file is missing, empty, not UTF-8, or a line has one column only.
    """
    from datasets import Dataset

    tokens: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            tokens.append([])
            tags.append([])
            continue
        cells = line.rstrip().split("\t") if "\t" in line else re.split(" +", line.strip(" "))
        if len(cells) < 2:
            raise UserError(
                f"{file}, line {number}: {line[:40]!r} has no tag. Expected a token and a tag, "
                "separated by a blank or a tab, and a blank line after each sentence."
            )
        tokens[-1].append(cells[0])
        tags[-1].append(cells[-1].strip())
    found = {"tokens": [row for row in tokens if row], "tags": [row for row in tags if row]}
    if not found["tokens"]:
        raise UserError(f"{file} holds no sentences. Expected a token and its tag a line.")
    return Dataset.from_dict(found)


def _text(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"There is no data file {file}. Check the path.")
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error


def named_tags(
    split: "Dataset", where: str, token_column: str | None, tag_column: str | None
) -> "Dataset":
    """Return the rows as `tokens` (list of str) and `tags` (list of str, as long).

    Raises:
        UserError: if a row has other than that, or nothing at all.
    """
    from datasets import Dataset

    names = {
        "tokens": find_column(split, token_column, TOKEN_COLUMNS, "text_column_name"),
        "tags": find_column(split, tag_column, TAG_COLUMNS, "label_column_name"),
    }
    tokens, tags = split[names["tokens"]], split[names["tags"]]
    for row, pair in enumerate(zip(tokens, tags, strict=True), start=1):
        check_row(f"{where} row {row}", *pair)
    # A hub set carries the names in the type of the column.
    words = getattr(getattr(split.features[names["tags"]], "feature", None), "names", None)
    shown = [[words[tag] if words else str(tag) for tag in row] for row in tags]
    return Dataset.from_dict({"tokens": tokens, "tags": shown})


def check_row(where: str, tokens: object, tags: object) -> None:
    """Refuse a row that is not a list of words and a list of as many tags."""
    lists = isinstance(tokens, list) and isinstance(tags, list)
    if not lists or not tokens or not all(isinstance(token, str) for token in tokens):
        raise UserError(
            f"{where}: expected a list of words and a list of tags, found {str(tokens)[:40]} and "
            f"{str(tags)[:40]}. Mend the data, or name other columns."
        )
    if len(tokens) != len(tags) or None in tags:
        found = sum(tag is not None for tag in tags)
        raise UserError(
            f"{where}: {len(tokens)} words ({' '.join(tokens)[:40]!r}) have {found} tags. "
            "Every word needs one; mend the data."
        )


def label_names(train: "Dataset", validation: "Dataset") -> list[str]:
    """Return all tags, sorted; of each type in validation, train must have one tag at least.

    Raises:
        UserError: if they are no BIO tags, or validation has types that they do not.
    """
    found, wanted = ({tag for row in split["tags"] for tag in row} for split in (train, validation))
    strange = sorted(tag for tag in found | wanted if tag != OUTSIDE and not TAG.fullmatch(tag))
    if strange:
        raise UserError(
            f"{', '.join(strange[:5])}: not BIO tags, by which entities are scored. Expected O, "
            "and B-, I-, E- or S- with a type, such as B-PER."
        )
    unseen = sorted(wanted - found)
    strangers = [tag for tag in unseen if tag[2:] not in {known[2:] for known in found}]
    if strangers:
        raise UserError(
            f"Validation holds tags that train does not: {', '.join(strangers[:5])}. "
            "Mend the file; a model cannot learn a tag it never sees."
        )
    if unseen:
        print(f"No train row has {', '.join(unseen)}, which validation holds; it counts as missed.")
    return sorted(found | wanted)


def check_order(split: "Dataset", where: str, on_broken_tags: str) -> None:
    """Count the sentences with an entity that does not begin with B-; refuse or print them.

    Raises:
        UserError: if there are any, unless `on_broken_tags` is 'keep'.
    """
    broken = [
        (row, word)
        for row, tags in enumerate(split["tags"])
        if (word := next(broken_words(tags), None)) is not None
    ]
    if not broken:
        return
    shown = "; ".join(_described(split[row], row, word) for row, word in broken[:SHOWN])
    finding = f"{len(broken)} of {len(split)} {where} sentences have broken BIO tags ({shown})."
    if on_broken_tags == "keep":
        print(f"{finding} They are kept: seqeval takes such a tag for an entity's beginning.")
        return
    raise UserError(
        f"{finding} Mend them, or go on with --on_broken_tags keep: such a tag then counts as an "
        "entity's beginning, as seqeval reads it."
    )


def broken_words(tags: list[str]) -> Iterator[int]:
    """Yield the words that go on with an entity which the word before is not in."""
    before = OUTSIDE
    for word, tag in enumerate(tags):
        border, _, kind = tag.partition("-")
        if border in ("I", "E") and before not in (f"B-{kind}", f"I-{kind}"):
            yield word
        before = tag


def _described(sentence: dict[str, list[str]], row: int, word: int) -> str:
    token, tag = sentence["tokens"][word], sentence["tags"][word]
    before = f"after {sentence['tags'][word - 1]}" if word else "at the beginning"
    return f"sentence {row + 1}: {token!r} {tag} {before}"
