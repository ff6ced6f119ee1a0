"""Questions from files: SQuAD's nested JSON (v1.1 and v2) and flat rows as a hub has them.

Everything ends as one `datasets.Dataset` with the columns of `COLUMNS`; what would only fail, or
mislead, in training is refused here.
"""

import json
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from helpers.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, Features

COLUMNS = ("id", "title", "context", "question", "answers")
NEEDED = ("id", "context", "question", "answers")
SHAPE = (
    "SQuAD's nested JSON (data, paragraphs, qas) or rows with id, context, question and "
    "answers {text, answer_start}"
)
SHOWN = 3

Row = dict[str, Any]
Part = Literal["train", "validation"]
OnBadAnswers = Literal["stop", "drop"]


class Misplaced(NamedTuple):
    """An answer whose text is not at its `answer_start`, and what stands there instead."""

    question: str
    text: str
    start: int
    there: str

    def __str__(self) -> str:
        return f"{self.text[:40]!r} at {self.start} of {self.question} (there: {self.there[:40]!r})"


def read_questions(
    files: str | Path | Sequence[str | Path],
    part: Part,
    *,
    version_2_with_negative: bool = False,
    on_bad_answers: OnBadAnswers = "stop",
) -> "Dataset":
    """Read one file or several, joined in their order, into columns `COLUMNS`.

    Args:
        files: UTF-8 .json or .jsonl, in any of the shapes of `SHAPE`; other fields are ignored.
        part: what the questions are for; of train questions every answer must be at its place.
        version_2_with_negative: whether a question may have no answer.
        on_bad_answers: see `checked`.

    Raises:
        UserError: for files that are missing, empty or of another shape, and as in `checked`.
    """
    listed = [files] if isinstance(files, str | Path) else list(files)
    rows = [row for file in listed for row in read_file(Path(file))]
    return checked(
        rows,
        part,
        version_2_with_negative=version_2_with_negative,
        on_bad_answers=on_bad_answers,
    )


def read_file(file: Path) -> list[Row]:
    """Read one file into rows of `COLUMNS`, unchecked but for their shape.

    Raises:
        UserError: if it is missing, empty, no UTF-8, no JSON, or of another shape.
    """
    if not file.is_file():
        raise UserError(f"There is no data file {file}. Check the path.")
    try:
        text = file.read_text("utf-8-sig")
        content = _parse(text)
    except (ValueError, RecursionError) as error:  # JSON's and Unicode's errors are ValueErrors
        raise UserError(
            f"{file} is not readable as JSON in UTF-8 ({error}). "
            f"Expected: {SHAPE}; or one such row a line (jsonl)."
        ) from error
    rows = [tidy(row, str(file)) for row in _rows(content, file)]
    if not rows:
        raise UserError(f"{file} holds no questions. Expected: {SHAPE}.")
    return rows


def _parse(text: str) -> Any:  # noqa: ANN401 - whatever the JSON holds
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
    # Not `splitlines`: a JSON string may hold other line ends of Unicode as they are.
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _rows(content: Any, file: Path) -> Iterator[Row]:  # noqa: ANN401 - whatever the JSON holds
    if isinstance(content, dict):
        content = content.get("data", [content])
    try:
        for item in content:
            if "paragraphs" in item:
                yield from _questions(item)
            else:
                yield item
    except (KeyError, TypeError) as error:
        raise wrong_shape(str(file), error) from error


def _questions(article: Row) -> Iterator[Row]:
    """Flatten one article of SQuAD."""
    for paragraph in article["paragraphs"]:
        for question in paragraph["qas"]:
            yield {
                **question,
                "title": article.get("title"),
                "context": paragraph["context"],
            }


def tidy(row: Row, source: str) -> Row:
    """Bring a row to `COLUMNS`; answers, a list or a dict of lists, become a dict of lists.

    An answer without text is none: some sets write the missing answer of SQuAD v2 like that.

    Raises:
        UserError: if a field is missing or of another type.
    """
    try:
        pairs = _answers(row["answers"])
        return {
            "id": str(row["id"]),
            "title": _text(row.get("title") or ""),
            "context": _text(row["context"]),
            "question": _text(row["question"]),
            "answers": {"text": [p[0] for p in pairs], "answer_start": [p[1] for p in pairs]},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        named = isinstance(row, dict) and "id" in row
        where = f"{source}, question {row['id']}" if named else source
        raise wrong_shape(where, error) from error


def _answers(answers: Any) -> list[tuple[str, int]]:  # noqa: ANN401 - whatever the JSON holds
    """Return the answers that have a text, each with its place."""
    if isinstance(answers, dict):
        texts, starts = answers["text"], answers["answer_start"]
        if len(texts) != len(starts):
            raise ValueError(f"{len(texts)} texts of answers, {len(starts)} times answer_start")
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(answers, list):
        pairs = [(answer["text"], answer["answer_start"]) for answer in answers]
    else:
        raise TypeError(f"answers are {answers!r:.40}")
    return [(_text(text), _place(start)) for text, start in pairs if text.strip()]


def _place(value: int) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"answer_start {value!r:.40} is not a whole number")
    return operator.index(value)


def _text(value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    value.encode()  # half a surrogate pair would stop Arrow and the tokenizer later
    return value


def wrong_shape(source: str, error: Exception) -> UserError:
    """Word a missing or odd field for the reader."""
    reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
    return UserError(f"{source} has another shape ({reason}). Expected: {SHAPE}.")


def from_hub_rows(split: "Dataset", part: Part, name: str, **options: Any) -> "Dataset":
    """Bring a hub's split to `COLUMNS` and check it; `options` are those of `checked`.

    Raises:
        UserError: for a missing column, and as in `checked`.
    """
    missing = [column for column in NEEDED if column not in split.column_names]
    if missing:
        raise UserError(
            f"{name} has no column {', '.join(missing)}, but {', '.join(split.column_names)}. "
            "Question answering needs id, context, question and answers."
        )
    return checked([tidy(row, name) for row in split], part, **options)


def checked(
    rows: list[Row],
    part: Part,
    *,
    version_2_with_negative: bool = False,
    on_bad_answers: OnBadAnswers = "stop",
) -> "Dataset":
    """Refuse what would mislead and return the rest as a data set.

    Args:
        rows: as `tidy` gives them.
        part: what they are for.
        version_2_with_negative: whether a question may have no answer.
        on_bad_answers: what to do about answers whose text is not at `answer_start`. 'stop'
            refuses them. 'drop' says how many there are and goes on: they are left out of
            training, with their question if it has no other. Validation questions stay whole,
            since they are scored by their text, as SQuAD does.

    Raises:
        UserError: for no questions at all, an id that occurs twice (predictions are kept by id),
            empty contexts or questions, questions without an answer, or misplaced answers.
    """
    from datasets import Dataset

    if on_bad_answers not in get_args(OnBadAnswers):
        raise UserError(f"--on_bad_answers {on_bad_answers!r}: expected stop or drop.")
    refuse_repeated(rows, part)
    for column in ("context", "question"):
        empty = [row["id"] for row in rows if not row[column].strip()]
        _refuse(empty, rows, f"{part} questions have an empty {column}", "Mend or remove them.")
    rows = placed(rows, part, on_bad_answers)
    if not version_2_with_negative:
        silent = [row["id"] for row in rows if not row["answers"]["text"]]
        mend = "If that is meant, as in SQuAD v2, add --version_2_with_negative."
        _refuse(silent, rows, f"{part} questions have no answer", mend)
    if not rows:
        raise UserError(f"There are no {part} questions. Expected: {SHAPE}.")
    return Dataset.from_list(rows, features=columns())


def refuse_repeated(rows: Iterable[Row], part: Part) -> None:
    """Refuse ids that occur more than once."""
    repeated = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if repeated:
        raise UserError(
            f"{len(repeated)} ids of {part} questions occur more than once (first: {repeated[0]}). "
            "Predictions are kept by id: give each file once, or make the ids unique."
        )


def _refuse(found: list[str], rows: list[Row], problem: str, mend: str) -> None:
    if found:
        raise UserError(f"{len(found)} of {len(rows)} {problem} (first: {found[0]}). {mend}")


def placed(rows: list[Row], part: Part, on_bad_answers: OnBadAnswers) -> list[Row]:
    """Stop at answers that are not where they say, or go on as `checked` describes."""
    bad = [found for row in rows for found in misplaced(row)]
    if not bad:
        return rows
    answers = sum(len(row["answers"]["text"]) for row in rows)
    # Annotators often agree, also where they are wrong.
    shown = list(dict.fromkeys(map(str, bad)))[:SHOWN]
    said = f"{len(bad)} of {answers} {part} answers are not at their answer_start: "
    said += "; ".join(shown)
    if on_bad_answers == "stop":
        raise UserError(f"{said}. Mend the file, or go on with --on_bad_answers drop.")
    if part == "validation":
        print(f"{said}. They are scored by their text all the same.")
        return rows
    kept = [row for row in map(_well_placed, rows) if row]
    print(f"{said}. They are left out, {len(rows) - len(kept)} questions with them.")
    return kept


def misplaced(row: Row) -> Iterator[Misplaced]:
    """Yield the answers of a row that do not stand at their `answer_start`."""
    for text, start in zip(*row["answers"].values(), strict=True):
        there = row["context"][start : start + len(text)] if start >= 0 else ""
        if there != text:
            yield Misplaced(row["id"], text, start, there)


def _well_placed(row: Row) -> Row | None:
    """Return the row with its good answers only; None if it had answers and none is good."""
    bad = {(found.text, found.start) for found in misplaced(row)}
    pairs = [p for p in zip(*row["answers"].values(), strict=True) if p not in bad]
    if bad and not pairs:
        return None
    return row | {"answers": {"text": [p[0] for p in pairs], "answer_start": [p[1] for p in pairs]}}


def columns() -> "Features":
    """Return the types of the columns, the same as SQuAD's on the hub."""
    from datasets import Features, Sequence, Value

    texts = {name: Value("string") for name in COLUMNS[:-1]}
    answers = Sequence({"text": Value("string"), "answer_start": Value("int32")})
    return Features({**texts, "answers": answers})
