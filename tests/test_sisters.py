"""run_qa, run_ner and run_mlm: a sparse int8 model from the shell, taught, saved and exported."""

import json
from pathlib import Path

import pytest

from helpers.__main__ import main
from helpers.question_answering import answer
from helpers.stops import Checkpoint, OnnxModel

PLACES = ["harbour", "village", "castle", "market"]
THINGS = ["boat", "lamp", "horse", "bell"]
SPARSE = ["--recipe", "minilm-6layers_prune80_quant", "--recipe_args", "num_epochs=4"]
QUICK = ["--per_device_train_batch_size", "8", "--disable_tqdm", "true", "--learning_rate", "2e-3"]


def write_questions(file: Path) -> None:
    """Write questions in SQuAD's form."""
    rows = []
    for place in PLACES:
        for thing in THINGS:
            context = f"The {thing} stands in the {place} near the river."
            gold = {"text": place, "answer_start": context.index(place)}
            question = f"Where is the {thing}?"
            one = {"id": f"{thing}-{place}", "question": question, "answers": [gold]}
            rows.append({"context": context, "qas": [one]})
    file.write_text(json.dumps({"data": [{"title": "things", "paragraphs": rows}]}))


def write_tags(file: Path) -> None:
    """Write sentences in CoNLL's form."""
    lines = []
    for place in PLACES:
        for thing in THINGS:
            lines += ["the O", f"{thing} B-THING", "of O", f"{place} B-PLACE", ""]
    file.write_text("\n".join(lines))


@pytest.mark.parametrize("command", ["run_qa", "run_ner"])
def test_dense_then_sparse_int8_with_a_teacher(
    command: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = tmp_path / ("rows.json" if command == "run_qa" else "rows.txt")
    {"run_qa": write_questions, "run_ner": write_tags}[command](rows)
    data = ["--train_file", rows, "--validation_file", rows, "--max_seq_length", "32"]
    data += ["--doc_stride", "8"] if command == "run_qa" else []
    dense, sparse = tmp_path / "dense", tmp_path / "sparse"

    def run(*flags: object) -> int:
        return main([command, *map(str, [*data, *QUICK, *flags])])

    assert run("--model_name_or_path", tiny_model, "--output_dir", dense) == 0
    taught = ["--distill_teacher", "self", "--onnx_export_path", tmp_path / "onnx", "--json"]
    assert run("--model_name_or_path", dense, "--output_dir", sparse, *SPARSE, *taught) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    made = Checkpoint.load(sparse)
    assert report["metrics"] == made.metrics
    assert next(iter(made.metrics)) == "f1"
    assert made.run["quantized_modules"] > 0
    assert OnnxModel.load(tmp_path / "onnx").proof["checks"] == report["checks"]
    again = ["export", sparse, "--onnx_export_path", tmp_path / "again", *data[:4]]
    assert main([*map(str, again)]) == 0, "length and kind are the checkpoint's own"
    if command == "run_qa":
        given = json.loads((sparse / "eval_predictions.json").read_text())
        assert set(given) == {f"{thing}-{place}" for thing in THINGS for place in PLACES}
        assert len(answer(made, "Where is the bell?", "The bell stands in the market.")) > 0


def test_hidden_words_are_learnt_but_not_exported(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the {t} of the {p} is old" for t in THINGS for p in PLACES) * 4)
    flags = ["--train_file", text, "--max_seq_length", "16", "--output_dir", tmp_path / "mlm"]
    flags += ["--model_name_or_path", tiny_model, "--num_train_epochs", "2", *QUICK]
    flags += ["--line_by_line", "true", "--mlm_probability", "0.3"]
    refused = ["--onnx_export_path", tmp_path / "onnx"]
    assert main(["run_mlm", *map(str, [*flags, *refused])]) == 2
    assert "run_mlm exports nothing" in capsys.readouterr().err
    assert main(["run_mlm", *map(str, flags)]) == 0
    assert main(["export", str(tmp_path / "mlm"), *refused[:1], str(tmp_path / "onnx")]) == 2
    assert {"accuracy", "perplexity"} <= set(Checkpoint.load(tmp_path / "mlm").metrics)
