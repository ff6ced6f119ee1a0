"""run_qa, run_ner and run_mlm: a sparse int8 model from the shell, taught, saved and exported."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM

from helpers import models, sparsity
from helpers.__main__ import main
from helpers.asking import answer
from helpers.question_answering import SQUAD_TRAIN, SQUAD_VALIDATION
from helpers.stops import Checkpoint, OnnxModel

PLACES = ["harbour", "village", "castle", "market"]
THINGS = ["boat", "lamp", "horse", "bell"]
SPARSE = ["--recipe", "minilm-6layers_prune80_quant", "--recipe_args", "num_epochs=4"]
QUICK = ["--per_device_train_batch_size", "8", "--disable_tqdm", "true", "--learning_rate", "2e-3"]


@pytest.fixture(scope="module")
def deep_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random BERT, thin but of twelve layers and for 384 tokens."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("deep") / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, model_max_length=384)
    tokenizer.save_pretrained(folder)
    config = BertConfig.from_pretrained(tiny_model, num_hidden_layers=12)
    config.max_position_embeddings = 384
    BertModel(config).save_pretrained(folder)
    return folder


def write_questions(file: Path, prefix: str = "") -> None:
    """Write questions in SQuAD's form."""
    rows = []
    for place in PLACES:
        for thing in THINGS:
            context = f"The {thing} stands in the {place} near the river."
            gold = {"text": place, "answer_start": context.index(place)}
            question = f"Where is the {thing}?"
            one = {"id": f"{prefix}{thing}-{place}", "question": question, "answers": [gold]}
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


def test_the_published_command_line_runs_as_it_stands(
    deep_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The original integration's, word for word, but for folders in the place of hub names."""
    (tmp_path / "squad").mkdir()
    (tmp_path / "squadshifts").mkdir()
    for file in (*SQUAD_TRAIN, SQUAD_VALIDATION):
        write_questions(tmp_path / file, prefix=file)
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    teacher, student, onnx = tmp_path / "teacher", tmp_path / "student", tmp_path / "onnx"
    dense = ["run_qa", "--model_name_or_path", deep_model, "--dataset_name", "squad", *QUICK]
    assert main([*map(str, [*dense, "--output_dir", teacher, "--max_steps", "1"])]) == 0
    published = f"""run_qa --model_name_or_path {deep_model} --dataset_name squad
        --do_train --do_eval --evaluation_strategy epoch
        --per_device_train_batch_size 16 --learning_rate 5e-5
        --max_seq_length 384 --doc_stride 128 --output_dir {student} --cache_dir {tmp_path}/cache
        --preprocessing_num_workers 6 --fp16 --seed 42 --num_train_epochs 30
        --recipe recipes/bert-base-12layers_prune80.md --onnx_export_path {onnx}
        --save_strategy epoch --save_total_limit 2 --distill_teacher {teacher}
        --distill_hardness 1.0 --distill_temperature 2.0"""
    assert main(published.split()) == 0
    assert "--fp16 needs a GPU" in capsys.readouterr().out
    made = Checkpoint.load(student)
    assert made.run["request"]["epochs"] == 30
    zeros = sparsity.sparse_parameters(models.load_model(made))
    assert len(zeros) == 12 * 6
    assert all(abs(share - 0.8) < 0.01 for share in zeros.values())
    assert len(list(student.glob("checkpoint-*"))) == 2
    OnnxModel.load(onnx)
    measured = ["--do_eval", "--model_name_or_path", student, "--output_dir", tmp_path / "again"]
    assert main([*map(str, ["run_qa", "--dataset_name", "squad", *measured])]) == 0
    again = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    assert again["f1"] == pytest.approx(made.metrics["f1"])


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


def test_a_masked_language_model_is_measured_alone_in_blocks(
    tiny_model: Path, tmp_path: Path
) -> None:
    """One training text, which is all that a measurement encodes, does not fill a block."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the {t} of the {p} is old" for t in THINGS for p in PLACES) * 4)
    data = ["--train_file", text, "--validation_split_percentage", "50", "--max_seq_length", "32"]
    flags = ["--output_dir", tmp_path / "mlm", "--model_name_or_path", tiny_model]
    assert main(["run_mlm", *map(str, [*data, *flags, "--max_steps", "2", *QUICK])]) == 0
    made, theirs = Checkpoint.load(tmp_path / "mlm"), tmp_path / "theirs"
    AutoModelForMaskedLM.from_pretrained(made.folder).save_pretrained(theirs)
    models.load_tokenizer(made.folder).save_pretrained(theirs)
    for source, name in ((made.folder, "again"), (theirs, "adopted")):
        flags = ["--output_dir", tmp_path / name, "--model_name_or_path", source, "--do_eval"]
        assert main(["run_mlm", *map(str, [*data, *flags, *QUICK])]) == 0
        found = json.loads((tmp_path / name / "eval_results.json").read_text())
        assert found == pytest.approx(made.metrics, rel=1e-4)


def test_a_checkpoint_is_measured_as_it_was_trained_unless_told_otherwise(
    tiny_model: Path, tmp_path: Path
) -> None:
    """The command's own 384 tokens are more than this model takes."""
    write_questions(tmp_path / "rows.json")
    data = ["--train_file", tmp_path / "rows.json", "--validation_file", tmp_path / "rows.json"]

    def run(name: str, *flags: object) -> int:
        place = ["--output_dir", tmp_path / name, *QUICK]
        return main(["run_qa", *map(str, [*data, *place, *flags])])

    short = ["--max_seq_length", "32", "--doc_stride", "8", "--max_steps", "2"]
    assert run("run", "--model_name_or_path", tiny_model, *short) == 0
    made = Checkpoint.load(tmp_path / "run")
    alone = ["--model_name_or_path", made.folder, "--do_eval"]
    assert run("again", *alone, "--onnx_export_path", tmp_path / "onnx") == 0
    again = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    assert again == pytest.approx(made.metrics)
    assert run("typed", *alone, "--max_seq_length", "384") == 2, "what is typed counts"
