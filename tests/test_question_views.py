"""What a reader looks at: answers in their contexts, windows, the form, and the shell command."""

import re
import shlex
from pathlib import Path

import nbformat
import pytest
from transformers import AutoTokenizer

from helpers import models, notebooks, question_views, squad, stops, tiers
from helpers.commands import parse
from helpers.commands.run_qa import QuestionArguments
from helpers.question_answering import QuestionAnswering
from helpers.stops import Checkpoint

CONTEXT = " ".join(f"In year {n} the tide rose {n + 3} metres and fell again." for n in range(20))
TEXT = "14 metres"
START = CONTEXT.index(TEXT)
ROW: squad.Row = {
    "id": "tide",
    "title": "",
    "context": CONTEXT,
    "question": "how high in year 11?",
    "answers": {"text": [TEXT], "answer_start": [START]},
}
TASK = QuestionAnswering("tides", [], [], [], 64, doc_stride=16)


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return an untrained model that answers questions in windows of 64 tokens."""
    folder = tmp_path_factory.mktemp("questions")
    models.save_model(models.new_model(tiny_model, TASK), folder, quantized=False)
    AutoTokenizer.from_pretrained(str(tiny_model)).save_pretrained(folder)
    stops.write_note(folder, "run.json", TASK.settings)
    return Checkpoint.load(folder)


def test_an_answer_is_marked_where_it_stands() -> None:
    shown = question_views.marked(ROW)
    assert "rose »14 metres« and" in shown
    assert shown.replace("»", "").replace("«", "") == CONTEXT


def test_windows_cover_the_context_overlap_and_hold_the_answer(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model))
    table = question_views.windows(TASK, tokenizer, ROW)
    assert len(table) >= 5
    assert table.start.iloc[0] == 0 and table.end.iloc[-1] == len(CONTEXT)
    assert (table.start.iloc[1:].to_numpy() < table.end.iloc[:-1].to_numpy()).all()
    for window in table.itertuples():
        assert window.answer == (window.start <= START and START + len(TEXT) <= window.end)
        assert CONTEXT[window.start :].startswith(window.begins)
        assert CONTEXT[: window.end].endswith(window.ends)
    # A question of 6 tokens and three special ones leave 55.
    assert table.tokens.iloc[0] == 55 and table["answer"].any()


@pytest.mark.parametrize(
    ("context", "count"), [(1, 1), (51, 1), (52, 2), (87, 3), (100, 3), (300, 9)]
)
def test_windows_are_counted(
    context: int, count: int, checkpoint: Checkpoint, capsys: pytest.CaptureFixture
) -> None:
    # 64 less 10 and three special tokens are 51; each further window brings 35 new ones.
    expected = 1 + max(0, -(-(context - 51) // 35))
    assert count == expected
    capsys.readouterr()
    assert question_views.count_windows(checkpoint, 10, context, shared=16) == count
    assert capsys.readouterr().out == "", "it would tell the answer of an exercise"


def test_the_form_shows_what_the_checkpoint_answers(checkpoint: Checkpoint) -> None:
    question, context, button, shown = question_views.form(
        checkpoint, "how high?", CONTEXT
    ).children
    assert shown.value == ""
    button.click()
    best = question_views.answer(checkpoint, "how high?", CONTEXT)
    assert shown.value == best.to_html(index=False)
    context.value = "The tide rises twice a day."
    button.click()
    assert shown.value.count("<tr>") == 5 and shown.value != best.to_html(index=False)
    question.value = ""
    button.click()
    assert shown.value == "A question and a context are needed. Fill in what is empty."


@pytest.mark.notebooks
def test_the_command_in_the_notebook_is_what_the_notebook_does() -> None:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    from helpers.commands.arguments import JsonArgument, ModelArguments
    from helpers.training import DEFAULTS

    (file,) = notebooks.ordered(["08"])
    text = "\n".join(cell.source for cell in nbformat.read(file, as_version=4).cells)
    (block,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    dense, sparse = (line.split(" run_qa ")[1] for line in block.replace("\\\n", " ").splitlines())
    sizes = tiers.QUESTIONS["laptop"]
    types = (ModelArguments, QuestionArguments, TrainingArguments, JsonArgument)
    for flags, epochs in ((dense, sizes.training["num_train_epochs"]), (sparse, None)):
        model, data, args, _ = parse("run_qa", types, shlex.split(flags), **DEFAULTS)
        assert {name: getattr(data, name) for name in sizes.data} == sizes.data
        assert args.per_device_train_batch_size == sizes.batch_size
        if epochs:
            assert (args.num_train_epochs, args.learning_rate) == (epochs, sizes.learning_rate)
            made = args.output_dir
    assert model.model_name_or_path == args.distill_teacher == made
    assert args.recipe == "minilm-3layers_prune80"
    assert args.recipe_args == f"num_epochs={sizes.recipe_epochs}"
    assert model.onnx_export_path
