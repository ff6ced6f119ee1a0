"""A context cut into windows that overlap, and the place of an answer in each of them."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from helpers.answers import CLS
from helpers.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import BatchEncoding, PreTrainedTokenizerBase

# A question is cut to this many tokens, and to half the window where that is less (BERT's rule).
MAX_QUESTION_TOKENS = 64
# Rows tokenized at a time; few, since one huge context can make thousands of windows.
ROWS_AT_ONCE = 100
# Windows a question on average that a reader should know of: they take the time.
MANY_WINDOWS = 5


def encode(
    split: "Dataset",
    tokenizer: "PreTrainedTokenizerBase",
    max_seq_length: int,
    doc_stride: int,
    *,
    scored: bool,
) -> "Dataset":
    """Turn questions into windows, one row each, and say so where they are many."""
    check_tokenizer(tokenizer)
    say_cut_questions(split, tokenizer, question_limit(max_seq_length))
    work = partial(
        encode_rows,
        tokenizer=tokenizer,
        max_seq_length=max_seq_length,
        doc_stride=doc_stride,
        scored=scored,
    )
    found = split.map(
        work, batched=True, batch_size=ROWS_AT_ONCE, remove_columns=split.column_names
    )
    if len(found) > MANY_WINDOWS * len(split):
        asked = f"{len(split):,} questions make" if len(split) > 1 else "1 question makes"
        print(
            f"Contexts are long: {asked} {len(found):,} windows of {max_seq_length} tokens, and "
            "each takes the time of a question."
        )
    return found


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a tokenizer that cannot map tokens to characters, or that pads at the left."""
    if not tokenizer.is_fast:
        raise UserError(
            "Question answering maps tokens back to characters, which only a fast tokenizer does. "
            "Put a tokenizer.json into the model's folder."
        )
    if tokenizer.padding_side != "right":
        raise UserError(
            "The tokenizer pads at the left, but windows are padded at the right. "
            'Set "padding_side": "right" in its tokenizer_config.json.'
        )


def encode_rows(
    rows: dict[str, list],
    *,
    tokenizer: "PreTrainedTokenizerBase",
    max_seq_length: int,
    doc_stride: int,
    scored: bool,
) -> dict[str, list]:
    """Tokenize questions with their contexts into windows; see `QuestionAnswering.encode`."""
    limit = question_limit(max_seq_length)
    questions, longest = cut_questions(rows["question"], tokenizer, limit)
    check_stride(tokenizer, max_seq_length, doc_stride, longest)
    tokens = tokenizer(
        questions,
        rows["context"],
        truncation="only_second",
        max_length=max_seq_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    origins = tokens["overflow_to_sample_mapping"]
    offsets = [context_offsets(tokens, i) for i in range(len(origins))]
    golds = [rows["answers"][i] for i in origins]
    contexts = [rows["context"][i] for i in origins]
    places = [locate(*row) for row in zip(offsets, contexts, golds, strict=True)]
    windows = {name: tokens[name] for name in tokenizer.model_input_names} | {
        "length": [len(ids) for ids in tokens["input_ids"]],
        "start_positions": [start for start, _ in places],
        "end_positions": [end for _, end in places],
    }
    if not scored:
        return windows
    return windows | {
        "example_id": [rows["id"][i] for i in origins],
        "offset_mapping": [table.tolist() for table in offsets],
        "passage": [passage(*row) for row in zip(offsets, contexts, strict=True)],
        # Whole, as they are typed already: of texts alone, a batch of unanswerables has no type.
        "answers": golds,
    }


def question_limit(max_seq_length: int) -> int:
    """Return the tokens kept of a question: the rest of a window is for its context."""
    return min(MAX_QUESTION_TOKENS, max_seq_length // 2)


def say_cut_questions(split: "Dataset", tokenizer: "PreTrainedTokenizerBase", limit: int) -> None:
    """Print how many questions are longer than what is kept of one."""
    questions = [question.lstrip() for question in split["question"]]
    tokens = tokenizer(questions, add_special_tokens=False, truncation=True, max_length=limit + 1)
    long = [row for row, ids in enumerate(tokens["input_ids"]) if len(ids) > limit]
    if long:
        print(
            f"{len(long):,} of {len(questions):,} questions have more than {limit} tokens "
            f"(first: {split['id'][long[0]]}). The model reads the first {limit} of each."
        )


def cut_questions(
    questions: list[str], tokenizer: "PreTrainedTokenizerBase", limit: int
) -> tuple[list[str], int]:
    """Cut questions to `limit` tokens; return them and the tokens of the longest one then."""
    # Some questions of SQuAD begin with a screenful of spaces.
    questions = [question.lstrip() for question in questions]
    tokens = tokenizer(
        questions,
        add_special_tokens=False,
        truncation=True,
        max_length=limit,
        return_offsets_mapping=True,
    )
    ends = [offsets[-1][1] if offsets else 0 for offsets in tokens["offset_mapping"]]
    cut = [question[:end] for question, end in zip(questions, ends, strict=True)]
    return cut, max(map(len, tokens["input_ids"]), default=0)


def check_stride(
    tokenizer: "PreTrainedTokenizerBase", max_seq_length: int, doc_stride: int, question: int
) -> None:
    """Refuse windows that could not move on: they share all the context that they hold."""
    room = max_seq_length - question - tokenizer.num_special_tokens_to_add(pair=True)
    if doc_stride < room:
        return
    smaller = f"--doc_stride {room // 2} or " if room > 1 else ""
    raise UserError(
        f"doc_stride is {doc_stride}, but beside a question of {question} tokens a window of "
        f"{max_seq_length} has room for {max(room, 0)} tokens of context. Use {smaller}a larger "
        "--max_seq_length."
    )


def context_offsets(tokens: "BatchEncoding", window: int) -> np.ndarray:
    """Return `Window.offsets` of one window, int [tokens, 2]."""
    offsets = np.array(tokens["offset_mapping"][window], dtype=np.int64).reshape(-1, 2)
    outside = [sequence != 1 for sequence in tokens.sequence_ids(window)]
    offsets[outside] = -1
    return offsets


def locate(offsets: np.ndarray, context: str, gold: dict[str, list]) -> tuple[int, int]:
    """Return first and last token of the first answer, or [CLS] twice if it is not all here.

    An answer that does not stand where it says is not here either.
    """
    inside = np.flatnonzero(offsets[:, 0] >= 0)
    if not gold["text"] or not len(inside):
        return CLS, CLS
    text, start = gold["text"][0], gold["answer_start"][0]
    end = start + len(text)
    if context[start:end] != text:
        return CLS, CLS
    # Spaces around an answer belong to no token.
    start, end = start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())
    starts, ends = offsets[inside].T
    if start < starts[0] or end > ends[-1]:
        return CLS, CLS
    first = int(inside[np.searchsorted(ends, start, side="right")])
    last = int(inside[np.searchsorted(starts, end, side="left") - 1])
    return (first, last) if first <= last else (CLS, CLS)


def passage(offsets: np.ndarray, context: str) -> str:
    """Return the part of a context that a window covers."""
    inside = offsets[offsets[:, 0] >= 0]
    return context[inside[0, 0] : inside[-1, 1]] if len(inside) else ""
