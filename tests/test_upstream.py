"""Upstream pruning and what may start from it: embeddings, zeros, refusals, kills."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_processes import launch
from test_resuming import kill_after, same_weights
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

import helpers
from helpers import models, plain_texts, sources, sparsity, starts, upstream
from helpers.__main__ import main
from helpers.commands.arguments import whole_paths
from helpers.environment import REPOSITORY
from helpers.errors import ProofError, UserError
from helpers.recipe_text import find_recipe
from helpers.recipes import load_recipe
from helpers.requests import identity
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.upstream import Upstream, load_upstream, nearest

TEXTS = [
    f"{who} saw the {what} on day {day}"
    for day in range(6)
    for who, what in (("a fisher", "salt sea"), ("the bird", "high cloud"), ("she", "old boat"))
    for what in (what, f"{what} and a star that was {what.split()[0]} and far away")
]
QUICK = ["--per_device_train_batch_size", "8", "--disable_tqdm", "true"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Return the folder of a random BERT of six thin layers, as many as the recipes name."""
    folder = tmp_path_factory.mktemp("six") / "model"
    torch.manual_seed(0)
    BertModel(BertConfig.from_pretrained(tiny_model, num_hidden_layers=6)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def flags(six_layers: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the flags of a quick upstream run on a small text file."""
    file = tmp_path_factory.mktemp("texts") / "plain.txt"
    file.write_text("\n".join(TEXTS))
    return [
        *("sparsify_upstream", "--model_name_or_path", str(six_layers), "--max_seq_length", "12"),
        *("--train_file", str(file), "--validation_split_percentage", "20", *QUICK),
        *("--recipe_args", "num_epochs=4,init_lr=0.002"),
        *("--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "2"),
    ]


@pytest.fixture(scope="module")
def sparse(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return a model pruned upstream."""
    folder = tmp_path_factory.mktemp("upstream") / "sparse"
    assert main([*flags, "--output_dir", str(folder)]) == 0
    return Checkpoint.load(folder)


@pytest.fixture(scope="module")
def transferred(
    sparse: Checkpoint, tiny_files: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """Return it after a fine-tune on a task, by its folder, from the command line."""
    folder = tmp_path_factory.mktemp("transfer") / "out"
    command = ["run_glue", *tiny_files, "--model_name_or_path", str(sparse.folder), *QUICK]
    command += ["--max_seq_length", "16", "--recipe", "minilm-6layers_transfer_quant"]
    assert main([*command, "--output_dir", str(folder)]) == 0
    return Checkpoint.load(folder)


def upstream_task(dense: Path, texts: list[str] = TEXTS) -> Upstream:
    rows = Dataset.from_dict({"text": texts})
    return Upstream("plain", rows, rows, [], 12, str(dense))


def encoder_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return the encoder's matrices under the names they have without a head and without QAT."""
    found = sparsity.parameters(models.load_model(checkpoint))
    names = {name.removeprefix("bert."): name for name in found if "encoder.layer" in name}
    return {short: found[name] for short, name in names.items() if found[name].dim() == 2}


# What is learnt


def test_labels_are_what_the_dense_model_says_to_each_window(six_layers: Path) -> None:
    task, tokenizer = upstream_task(six_layers), models.load_tokenizer(six_layers)
    rows = task.encode(tokenizer, task.train)
    assert len(rows) > len(TEXTS), "long texts are cut, not cut off"
    dense = AutoModel.from_pretrained(six_layers).eval()
    for row in rows.select(range(0, len(rows), 7)):
        ids = torch.tensor([row["input_ids"]])
        assert ids.shape[1] == row["length"] <= 12
        with torch.no_grad():
            mean = dense(ids, torch.ones_like(ids)).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(row["labels"], mean, atol=1e-5)


def test_no_token_of_a_text_is_left_out(six_layers: Path) -> None:
    task, tokenizer = upstream_task(six_layers, TEXTS[:4]), models.load_tokenizer(six_layers)
    seen = [i for ids in task.encode(tokenizer, task.train)["input_ids"] for i in ids[1:-1]]
    whole = [i for ids in tokenizer(TEXTS[:4])["input_ids"] for i in ids[1:-1]]
    assert seen == whole


def test_metrics_by_hand(six_layers: Path) -> None:
    task = upstream_task(six_layers)
    dense = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert task.metrics(dense, dense) == pytest.approx(
        {"cosine_similarity": 1, "same_neighbour": 1}
    )
    assert list(nearest(dense)) == [1, 0, 3, 2]
    turned = dense[:, ::-1]
    found = task.metrics(turned, dense)
    assert found["cosine_similarity"] == pytest.approx(
        np.mean([0, 2 * 0.09 / 0.82, 0, 2 * 0.09 / 0.82])
    )
    assert found["same_neighbour"] == 1, "the map is another, the neighbours are not"
    mixed = task.metrics(dense[[0, 2, 1, 3]], dense)
    assert mixed["same_neighbour"] == 0


def test_neighbours_are_looked_for_among_so_many(
    six_layers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a whole corpus the search would take days; the cosine is that of all rows."""
    task, rng = upstream_task(six_layers), np.random.default_rng(0)
    dense, other = rng.normal(size=(2, 40, 8))
    assert task.metrics(other, dense)["same_neighbour"] < 1
    monkeypatch.setattr(upstream, "NEIGHBOURS", 2)
    found = task.metrics(other, dense)
    assert found["same_neighbour"] == 1, "of two texts each is the other's nearest"
    assert found["cosine_similarity"] < 0.8


def test_what_is_compared_with_is_one_array(six_layers: Path) -> None:
    task = upstream_task(six_layers)
    windows = task.encode(AutoTokenizer.from_pretrained(six_layers), task.train)
    found = task.references(windows)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(windows["labels"], dtype=np.float32))


def test_padding_does_not_change_an_embedding(six_layers: Path) -> None:
    dense = models.loader(models.NO_HEAD).from_pretrained(six_layers).eval()
    ids = torch.tensor([[101, 2014, 102, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        padded, plain = dense(ids, mask).embedding, dense(ids[:, :3]).embedding
    torch.testing.assert_close(padded, plain)


def test_it_is_sparse_still_sees_like_the_dense_one_and_is_a_plain_bert(
    sparse: Checkpoint, six_layers: Path
) -> None:
    shares = [sparsity.zeros(w.detach().numpy()) for w in encoder_weights(sparse).values()]
    assert shares == pytest.approx([0.8] * 36, abs=0.005)
    assert sparse.run["kind"] == "Upstream"
    assert sparse.run["dense"] == str(six_layers)
    assert sparse.metrics["cosine_similarity"] > 0.8
    losses = [row["loss"] for row in sparse.run["history"] if "loss" in row]
    assert all(np.isfinite(losses))
    _, info = BertModel.from_pretrained(sparse.folder, output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert BertConfig.from_pretrained(sparse.folder).hidden_dropout_prob == 0.1


def test_the_hidden_states_are_part_of_what_is_learnt(
    flags: list[str], sparse: Checkpoint, tmp_path: Path
) -> None:
    """The fault: a modifier that adds nothing would leave the same weights."""
    other = [*flags[:-6], "--recipe_args", "num_epochs=4,init_lr=0.002,states_gain=0.0"]
    assert main([*other, "--output_dir", str(tmp_path / "out")]) == 0
    assert not same_weights(sparse, Checkpoint.load(tmp_path / "out"))


def test_ninety_goes_on_from_eighty(
    flags: list[str], sparse: Checkpoint, six_layers: Path, tmp_path: Path
) -> None:
    command = [*flags, "--recipe", "minilm-6layers_upstream90"]
    command[2] = str(sparse.folder)
    assert main([*command, "--output_dir", str(tmp_path / "again")]) == 2, "it would prune again"
    command += ["--recipe_args", "num_epochs=2,init_sparsity=0.8"]
    assert main([*command, "--output_dir", str(tmp_path / "out")]) == 0
    found = Checkpoint.load(tmp_path / "out")
    assert found.run["dense"] == str(six_layers), "the dense one still teaches"
    shares = [sparsity.zeros(w.detach().numpy()) for w in encoder_weights(found).values()]
    assert shares == pytest.approx([0.9] * 36, abs=0.005)


# Transfer


def test_every_zero_is_still_there_after_the_transfer(
    sparse: Checkpoint, transferred: Checkpoint
) -> None:
    before, after = encoder_weights(sparse), encoder_weights(transferred)
    assert before.keys() == after.keys()
    assert all(bool((after[name][before[name] == 0] == 0).all()) for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before), "it has learnt"
    assert transferred.run["quantized_modules"] > 0
    assert transferred.run["kind"] == "Task"


def test_the_new_recipe_does_not_go_back_to_the_old_ones_teacher(transferred: Checkpoint) -> None:
    text = transferred.recipe_file.read_text()
    assert "PerLayerDistillation" not in text
    assert "ConstantPruningModifier" in text


def test_a_masked_language_model_is_a_start_too(
    tiny_model: Path, tiny_task: Task, tiny_files: list[str], tmp_path: Path
) -> None:
    lines = tmp_path / "plain.txt"
    lines.write_text("\n".join(TEXTS))
    command = ["run_mlm", "--model_name_or_path", str(tiny_model), "--max_seq_length", "12", *QUICK]
    command += ["--train_file", str(lines), "--validation_split_percentage", "20"]
    assert main([*command, "--line_by_line", "--output_dir", str(tmp_path / "mlm")]) == 0
    start = Checkpoint.load(tmp_path / "mlm")
    done = helpers.fine_tune(
        tiny_task, start, tmp_path / "out", num_train_epochs=1, disable_tqdm=True
    )
    assert done.run["kind"] == "Task"


def test_a_plain_fine_tune_of_a_sparse_model_is_refused(
    sparse: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"start is sparse \(80% zeros.*minilm-6layers_transfer"):
        helpers.fine_tune(tiny_task, sparse, tmp_path / "out", disable_tqdm=True)
    assert list(tmp_path.iterdir()) == []


def test_zeros_that_come_back_to_life_are_noticed(
    sparse: Checkpoint, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: nothing holds the zeros, and nobody asked for that beforehand."""
    monkeypatch.setattr(starts, "check_zeros", lambda recipe, network: None)
    with pytest.raises(ProofError, match="zeros kept"):
        helpers.fine_tune(
            tiny_task, sparse, tmp_path / "out", disable_tqdm=True, num_train_epochs=1
        )


@pytest.mark.parametrize("lost", ["end_epoch: 0.5", "start_epoch: 0.5"])
def test_a_recipe_that_holds_zeros_for_a_while_is_refused(
    lost: str, sparse: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    text = find_recipe("minilm-6layers_transfer").read_text()
    head, marker, rest = text.partition("  - !ConstantPruningModifier")
    key = lost.partition(":")[0]
    (tmp_path / "some.md").write_text(head + marker + re.sub(f"{key}: .*", lost, rest, count=1))
    recipe = load_recipe(tmp_path / "some.md")
    with pytest.raises(UserError, match="holds the zeros of the start from epoch"):
        helpers.fine_tune(tiny_task, sparse, tmp_path / "out", recipe=recipe, disable_tqdm=True)


def test_a_recipe_that_would_prune_again_is_refused(
    sparse: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    recipe = load_recipe("minilm-6layers_prune80", num_epochs=1)
    with pytest.raises(UserError, match="starts its mask anew on 36 matrices"):
        helpers.fine_tune(tiny_task, sparse, tmp_path / "out", recipe=recipe, disable_tqdm=True)


def test_a_start_that_is_dense_is_refused(
    six_layers: Path, tiny_task: Task, tmp_path: Path
) -> None:
    recipe = load_recipe("minilm-6layers_transfer")
    with pytest.raises(UserError, match=r"expects a sparse start .* has 0.0% zeros.*as dense"):
        helpers.fine_tune(tiny_task, six_layers, tmp_path / "o", recipe=recipe, disable_tqdm=True)
    lower = load_recipe("minilm-6layers_transfer", num_epochs=0.5, start_sparsity=0.0)
    assert helpers.fine_tune(tiny_task, six_layers, tmp_path / "o", recipe=lower, disable_tqdm=True)


def test_a_recipe_that_counts_on_zeros_and_holds_none_is_refused(
    six_layers: Path, tiny_task: Task, tmp_path: Path
) -> None:
    (tmp_path / "bare.yaml").write_text(
        load_recipe("minilm-6layers_transfer").text.split("pruning_modifiers:")[0]
    )
    recipe = load_recipe(tmp_path / "bare.yaml")
    with pytest.raises(UserError, match="counts on zeros .* and holds none"):
        helpers.fine_tune(tiny_task, six_layers, tmp_path / "o", recipe=recipe, disable_tqdm=True)


# Bad input


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--distill_teacher", "disable"], "leaves nothing to learn"),
        (["--onnx_export_path", "x"], "sparsify_upstream exports nothing"),
        (["--recipe", "minilm-3layers_prune80"], "there is no layer"),
    ],
)
def test_flags_that_make_no_sense(
    flags: list[str], more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*flags, *more, "--output_dir", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_fine_tuned_teacher_or_start_is_refused(
    flags: list[str], dense: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = ["--output_dir", str(tmp_path / "out")]
    assert main([*flags, "--distill_teacher", str(dense.folder), *out]) == 2
    assert "is a BertForSequenceClassification; plain needs a BertModel" in capsys.readouterr().err
    command = [*flags, *out]
    command[2] = str(dense.folder)
    assert main(command) == 2
    assert "was fine-tuned on sea-or-sky" in capsys.readouterr().err


def test_a_sparse_model_is_no_teacher(
    flags: list[str], sparse: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Neither by name, nor as a start that nobody wrote down the dense model of."""
    out = ["--output_dir", str(tmp_path / "out")]
    assert main([*flags, "--distill_teacher", str(sparse.folder), *out]) == 2
    assert "is no dense model (80% zeros in encoder.layer.0" in capsys.readouterr().err
    nameless = shutil.copytree(sparse.folder, tmp_path / "nameless")
    (nameless / "run.json").unlink()
    command = [*flags, *out]
    command[2] = str(nameless)
    assert main(command) == 2
    assert "Pass --distill_teacher with the model it was pruned from" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_another_width_is_refused(
    flags: list[str],
    six_layers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    wide = tmp_path / "wide"
    BertModel(BertConfig.from_pretrained(six_layers, hidden_size=48)).save_pretrained(wide)
    AutoTokenizer.from_pretrained(six_layers).save_pretrained(wide)
    taught = [*flags, "--distill_teacher", str(wide), "--output_dir", str(tmp_path / "out")]
    # Whatever the recipe compares, this task's own loss compares embeddings.
    for recipe in ([], ["--recipe", "minilm-6layers_prune80"]):
        assert main([*taught, *recipe]) == 2
        assert "is 48 wide, the model it is to teach 32" in capsys.readouterr().err


def test_a_sparse_model_is_measured_against_its_dense_one(
    sparse: Checkpoint,
    six_layers: Path,
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    texts = ["--validation_file", flags[flags.index("--train_file") + 1], "--do_eval"]
    command = ["sparsify_upstream", "--model_name_or_path", str(sparse.folder), *texts]
    command += ["--output_dir", str(tmp_path / "out"), "--distill_teacher"]
    assert main([*command, str(six_layers)]) == 0
    assert "will not count" not in capsys.readouterr().out
    wide = tmp_path / "wide"
    BertModel(BertConfig.from_pretrained(six_layers, hidden_size=48)).save_pretrained(wide)
    AutoTokenizer.from_pretrained(six_layers).save_pretrained(wide)
    assert main([*command, str(wide)]) == 2
    assert "is 48 wide, the model it is to teach 32" in capsys.readouterr().err


def test_embeddings_that_are_no_numbers_are_no_score(six_layers: Path) -> None:
    broken = np.array([[np.nan, 1.0], [1.0, 0.0]])
    with pytest.raises(UserError, match="1 of 2 answers are no numbers: the training diverged"):
        upstream_task(six_layers).metrics(broken, np.ones((2, 2)))


def test_an_encoder_without_some_layers_is_no_start_for_another_task(
    tmp_path: Path, tiny_task: Task
) -> None:
    recipe = find_recipe("minilm-3layers_prune80").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe)
    start = Checkpoint(
        tmp_path, {"kind": "MaskedLanguageModel", "recipe": "minilm-3layers_prune80"}
    )
    with pytest.raises(UserError, match="has dropped layers .minilm-3layers_prune80."):
        starts.build(start, tiny_task)


def test_a_folder_is_known_by_its_weights(six_layers: Path, tmp_path: Path) -> None:
    """Somebody else's folder has no note that would tell; its name stays as it is."""
    copy = shutil.copytree(six_layers, tmp_path / "copy")
    assert identity(copy) == identity(six_layers) != str(copy)
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert identity(copy) != identity(six_layers)
    assert identity("minilm") == "minilm"


def test_the_dense_model_is_found_again_from_elsewhere(
    six_layers: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(six_layers.parent)
    file = flags[flags.index("--train_file") + 1]
    assert load_upstream("x", dense=six_layers.name, train_file=file).dense == str(six_layers)


def test_tables_with_a_column_called_data_and_questions_on_many_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,data\none,1\ntwo,2\n")
    question = {"id": "q", "question": "Where?", "answers": [{"text": "a", "answer_start": 0}]}
    content = {"data": [{"title": "t", "paragraphs": [{"context": "a text", "qas": [question]}]}]}
    (tmp_path / "b.json").write_text(json.dumps(content, indent=2))
    files = f"{tmp_path / 'a.csv'},{tmp_path / 'b.json'}"
    assert [rows["text"] for rows in plain_texts.read_texts(files, None)] == [
        ["one", "two"],
        ["a text"],
    ]
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"The train \(.*blank.txt\) data holds no text"):
        plain_texts.read_texts(f"{files},{tmp_path / 'blank.txt'}", None)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "holds no text"), (b" \n\n", "holds no text"), (b"so\xff", "not UTF-8 text (byte 2)")],
)
def test_texts_that_are_none(
    content: bytes, said: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "texts.txt").write_bytes(content)
    more = ["--train_file", str(tmp_path / "texts.txt"), "--output_dir", str(tmp_path / "out")]
    assert main([*flags, *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_files_and_the_contexts_of_questions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\nfour")
    question = {"id": "q", "question": "Where?", "answers": [{"text": "a", "answer_start": 0}]}
    paragraphs = [{"context": f"a context {i // 2}", "qas": [question]} for i in range(8)]
    content = {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}
    (tmp_path / "b.json").write_text(json.dumps(content))
    task = load_upstream(
        "mine",
        train_file=f"{tmp_path / 'a.txt'},{tmp_path / 'b.json'}",
        validation_split_percentage=25,
    )
    assert task.validation["text"] == ["one", "a context 0"]
    assert task.train["text"] == ["two", "three", "four", *(f"a context {i}" for i in (1, 2, 3))]


def test_spaces_after_commas_and_commas_in_names(tmp_path: Path) -> None:
    """What is written down for a later --do_eval is what was read."""
    for name in ("a.txt", "b.txt", "c,d.txt"):
        (tmp_path / name).write_text("some words\n")
    two, odd = f"{tmp_path}/a.txt, {tmp_path}/b.txt", f"{tmp_path}/c,d.txt"
    assert sources.several(two) == [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert sources.several(odd) == [tmp_path / "c,d.txt"]
    assert whole_paths(two) == f"{tmp_path}/a.txt,{tmp_path}/b.txt"
    assert [len(plain_texts.read_texts(files, None)) for files in (two, odd)] == [2, 1]


def test_a_text_file_is_read_from_disk_not_from_memory(tmp_path: Path) -> None:
    """A file of 200 MB takes a small part of that in memory, read and hashed."""
    line = "the quick brown fox jumps over the lazy dog and the sea is salt " * 4
    with (tmp_path / "large.txt").open("w") as file:
        file.writelines(f"{number} {line}\n" for number in range(750_000))
    script = (
        "import resource, sys\n"
        "from helpers import plain_texts\n"
        "from helpers.masked_language import MaskedLanguageModel\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "plain_texts.read_texts(sys.argv[1], None)\n"
        "small = peak()\n"
        "rows = plain_texts.read_texts(sys.argv[2], None)[0]\n"
        "assert len(rows) == 750_000 and rows.cache_files\n"
        "MaskedLanguageModel('x', rows, rows.select([0]), [], 64).fingerprint\n"
        "print(peak() - small)\n"
    )
    (tmp_path / "small.txt").write_text("one\n")
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "small.txt", tmp_path / "large.txt"],
        cwd=REPOSITORY,
        env={**os.environ, "TUTORIAL_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        check=True,
    )
    # Mapped pages count as the process's own while they are warm; Python lists would take 300 MB.
    assert float(done.stdout) < 150


# Killed, and in two processes


def test_a_killed_run_ends_as_if_nothing_had_happened(
    flags: list[str], sparse: Checkpoint, tmp_path: Path
) -> None:
    steps = sparse.run["steps"]
    for share in (0.3, 0.8):
        place = tmp_path / f"run{share}"
        kill_after(int(steps * share), flags, place)
        assert not place.exists()
        assert main([*flags, "--output_dir", str(place)]) == 0
        resumed = Checkpoint.load(place)
        assert resumed.run["resumed_at_step"] >= int(steps * share)
        assert same_weights(sparse, resumed)
        assert resumed.metrics == sparse.metrics


def test_two_processes(flags: list[str], sparse: Checkpoint, tmp_path: Path) -> None:
    done = launch("-m", "helpers", *flags, "--output_dir", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-500:]
    two = Checkpoint.load(tmp_path / "two")
    assert two.run["processes"] == 2
    assert two.run["steps"] == pytest.approx(sparse.run["steps"] / 2, abs=4)
    shares = [sparsity.zeros(w.detach().numpy()) for w in encoder_weights(two).values()]
    assert shares == pytest.approx([0.8] * 36, abs=0.005)
