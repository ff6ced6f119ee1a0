"""Models: what a person types is found, and nothing is ever loaded in part or run."""

import importlib.util
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from helpers import adoption, models, weights
from helpers.errors import UserError
from helpers.stops import Checkpoint
from helpers.tasks import Task

LABELS = ["sea", "sky"]


def task(*labels: str) -> Task:
    """Return a classification without rows; a model needs to know its labels only."""
    nothing = Dataset.from_dict({"text": [], "label": []})
    return Task("sea-or-sky", nothing, nothing, list(labels or LABELS), 16)


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model's folder, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def with_config(folder: Path, **changes: object) -> None:
    """Change entries of a model's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_embedded_model_is_the_published_one() -> None:
    folder = models.embedded_minilm()
    assert models.sha256(folder / "model.safetensors") == models.MINILM_SHA256
    assert models.resolve_model("minilm") == str(folder.resolve())


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_embedded_model_is_noticed(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    if damage == "flipped":
        content = bytearray((models.embedded_minilm() / weights.name).read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="missing or damaged.*make setup"):
        models.resolve_model("minilm")


def test_an_embedded_model_that_is_not_installed_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "MINILM_PACKAGE", "no_such_package_here")
    with pytest.raises(UserError, match="not installed.*make setup"):
        models.embedded_minilm()


def test_a_zoo_stub_names_what_to_use_instead() -> None:
    with pytest.raises(UserError, match="shut down.*minilm.*Hugging Face name"):
        models.resolve_model("zoo:nlp/text_classification/bert-base/pytorch/huggingface/sst2")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "~/models/bert"])
def test_a_missing_folder_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(UserError, match="There is no model folder"):
        models.resolve_model(name)


def test_a_hub_name_without_a_network_is_refused() -> None:
    with pytest.raises(UserError, match="No model called 'nobody/no-such-bert'"):
        models.new_model("nobody/no-such-bert", task())
    with pytest.raises(UserError, match="No tokenizer called 'nobody/no-such-bert'"):
        models.load_tokenizer("nobody/no-such-bert")


def test_a_folder_without_config_or_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        models.new_model(copy, task())
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match="config.json is missing"):
        models.new_model(copy, task())


def test_truncated_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match="cannot be read"):
        models.new_model(copy, task())
    with_config(copy, architectures=["BertForSequenceClassification"])
    with pytest.raises(UserError, match="cannot be read"):
        models.load_model(Checkpoint(copy, {}))


def test_a_checkpoint_without_a_known_head_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["architectures"] = ["BertForNextSentencePrediction"]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="holds a BertForNextSen.*one of the heads .* with none"):
        models.load_model(Checkpoint(copy, {}))


@pytest.mark.parametrize("head", [*models.HEADS, models.NO_HEAD])
def test_every_head_is_saved_and_loaded_whole(head: str, tiny_model: Path, tmp_path: Path) -> None:
    """A masked-LM head shares its weights with the embeddings, which safetensors refuses."""
    kind = type("Kind", (Task,), {"head": head})
    wanted = kind("x", task().train, task().train, LABELS, 16)
    model = models.new_model(tiny_model, wanted).eval()
    models.save_model(model, tmp_path, quantized=False)
    loaded = models.load_model(Checkpoint(tmp_path, {}))
    batch = {"input_ids": torch.arange(8).reshape(2, 4)}
    with torch.no_grad():
        outputs = zip(model(**batch).values(), loaded(**batch).values(), strict=True)
    assert all(torch.equal(mine, stored) for mine, stored in outputs)


def test_only_the_head_is_new(tiny_model: Path) -> None:
    model = models.new_model(tiny_model, task("a", "b", "c"))
    stored = weights.read(tiny_model)
    ours = {key.removeprefix("bert."): value for key, value in model.state_dict().items()}
    assert all(torch.equal(ours[key], value) for key, value in stored.items() if key in ours)
    assert set(ours) - set(stored) == {"classifier.weight", "classifier.bias"}
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_head_of_another_size_is_replaced(dense: Checkpoint) -> None:
    model = models.new_model(dense.folder, task("a", "b", "c"))
    assert model.classifier.weight.shape[0] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": 128}, "would be random"),
        ({"hidden_size": 64}, "would be random"),
        ({"num_hidden_layers": 3}, "would be random"),
        ({"num_hidden_layers": 1}, "would be dropped"),
        ({"vocab_size": 100}, "would be random"),
        ({"model_type": "roberta"}, "architecture 'roberta'"),
        ({"model_type": "no-such-thing"}, "cannot be read"),
    ],
)
def test_a_config_that_disagrees_with_the_weights_is_refused(
    change: dict, message: str, copy: Path
) -> None:
    with_config(copy, **change)
    with pytest.raises(UserError, match=message):
        models.new_model(copy, task())


def test_weights_of_another_model_are_refused(copy: Path) -> None:
    from safetensors.torch import save_file

    save_file({"h.0.attn.weight": torch.ones(4, 4)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="weights besides the head would be random"):
        models.new_model(copy, task())


@pytest.mark.parametrize("kind", ["distilbert", "gpt2"])
def test_another_architecture_is_refused(kind: str, tmp_path: Path) -> None:
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        GPT2Config,
        GPT2ForSequenceClassification,
    )

    if kind == "distilbert":
        config = DistilBertConfig(vocab_size=50, dim=8, n_layers=1, n_heads=2, hidden_dim=16)
        model = DistilBertForSequenceClassification(config)
    else:
        config = GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2)
        model = GPT2ForSequenceClassification(config)
    model.save_pretrained(tmp_path / kind)
    with pytest.raises(UserError, match=f"architecture '{kind}'"):
        models.new_model(tmp_path / kind, task())


class Bomb:
    """A pickle of it makes a file when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_pickled_code_is_never_run(form: str, copy: Path, tmp_path: Path) -> None:
    mark, weights = tmp_path / "code was run", copy / "pytorch_model.bin"
    (copy / "model.safetensors").unlink()
    if form == "pickle":
        weights.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"bert.pooler.dense.bias": Bomb(mark)}, weights)
    with pytest.raises(UserError, match="cannot be read"):
        models.new_model(copy, task())
    with_config(copy, architectures=["BertForSequenceClassification"])
    with pytest.raises(UserError, match="cannot be read"):
        models.load_model(Checkpoint(copy, {}))
    assert not mark.exists()
    torch.load(weights, weights_only=False) if form == "torch" else pickle.loads(
        weights.read_bytes()
    )
    assert mark.exists(), "the bomb is a real one"


def test_code_that_comes_with_a_model_is_never_run(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "code was run"
    (copy / "theirs.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    classes = {"AutoConfig": "theirs.C", "AutoModelForSequenceClassification": "theirs.M"}
    with_config(copy, model_type="theirs", auto_map=classes)
    with pytest.raises(UserError, match="cannot be read"):
        models.new_model(copy, task())
    # Transformers asks whether to run it, unless it is told not to.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UserError, match="cannot be read"):
        adoption.adopt(copy, task())
    assert not mark.exists()


@pytest.mark.parametrize("quantized", [False, True])
def test_a_saved_model_is_the_same_model(quantized: bool, tiny_model: Path, tmp_path: Path) -> None:
    model = models.new_model(tiny_model, task()).eval()
    models.save_model(model, tmp_path, quantized=quantized)
    names = {"config.json", "pytorch_model.bin" if quantized else "model.safetensors"}
    assert {file.name for file in tmp_path.iterdir()} == names
    again = models.load_model(Checkpoint(tmp_path, {}))
    ids = torch.arange(2000, 2016).reshape(1, 16)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]


def test_a_model_with_one_weight_missing_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = models.new_model(tiny_model, task())
    models.save_model(model, tmp_path, quantized=False)
    state = weights.read(tmp_path)
    state.pop("bert.encoder.layer.1.output.dense.weight")
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"do not fit.*layer\.1\.output\.dense\.weight"):
        models.load_model(Checkpoint(tmp_path, {}))


def test_answers_are_words_with_a_probability(dense: Checkpoint) -> None:
    table = models.classify(dense, ["a wave and a boat", "a cloud and a bird"])
    assert table["answer"].tolist() == LABELS
    assert np.all((table["probability"] > 0.5) & (table["probability"] <= 1))


def test_answers_are_those_of_the_kind_of_task(dense: Checkpoint) -> None:
    texts = ["a wave and a boat", "a cloud and a bird"]
    several = Checkpoint(dense.folder, {**dense.run, "kind": "MultiLabel"})
    table = models.classify(several, texts)
    assert [set(answer.split(", ")) - {""} <= set(LABELS) for answer in table["answer"]] == [
        True
    ] * 2
    assert table["probability"].tolist() != models.classify(dense, texts)["probability"].tolist()
    scores = models.classify(
        Checkpoint(dense.folder, {**dense.run, "kind": "Regression"}), texts[:1]
    )
    assert isinstance(scores["answer"][0], float) and np.isnan(scores["probability"][0])


def test_a_checkpoint_is_opened_for_timing_only_when_it_is_whole(
    dense: Checkpoint, tmp_path: Path
) -> None:
    assert not models.load_for_inference(dense.folder).training
    broken = Path(shutil.copytree(dense.folder, tmp_path / "broken"))
    (broken / "config.json").write_text("{}")
    with pytest.raises(UserError, match="changed after the run ended"):
        models.load_for_inference(broken)


@pytest.fixture
def foreign_mlm(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a masked-LM model as any Hugging Face user would have saved it."""
    from transformers import AutoModelForMaskedLM

    network = AutoModelForMaskedLM.from_pretrained(tiny_model)
    torch.nn.init.normal_(network.cls.predictions.bias)
    network.save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    """Add weights to a file, or leave them out where the value is None."""
    from safetensors.torch import save_file

    state = weights.read(folder) | changes
    state = {name: value for name, value in state.items() if value is not None}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def guesses(network: torch.nn.Module) -> torch.Tensor:
    """Return the logits of a few token ids."""
    with torch.no_grad():
        return network.eval()(torch.arange(2000, 2016).reshape(1, 16)).logits


def test_a_weight_that_safetensors_left_out_is_the_one_it_is_tied_to(foreign_mlm: Path) -> None:
    from transformers import AutoModelForMaskedLM

    assert "cls.predictions.decoder.weight" not in weights.read(foreign_mlm)
    expected = guesses(AutoModelForMaskedLM.from_pretrained(foreign_mlm))
    assert torch.equal(guesses(models.load_model(Checkpoint(foreign_mlm, {}))), expected)


def test_what_is_left_of_pre_training_is_left_out(foreign_mlm: Path) -> None:
    """Hub models such as bert-base-uncased have all of this, and names of older releases."""
    expected = guesses(models.load_model(Checkpoint(foreign_mlm, {})))
    norm, old = "bert.embeddings.LayerNorm", weights.read(foreign_mlm)
    rewrite(
        foreign_mlm,
        **{
            "cls.seq_relationship.weight": torch.ones(2, 32),
            "cls.seq_relationship.bias": torch.ones(2),
            "bert.pooler.dense.weight": torch.ones(32, 32),
            "bert.pooler.dense.bias": torch.ones(32),
            f"{norm}.gamma": old[f"{norm}.weight"],
            f"{norm}.beta": old[f"{norm}.bias"],
            f"{norm}.weight": None,
            f"{norm}.bias": None,
        },
    )
    assert torch.equal(guesses(models.load_model(Checkpoint(foreign_mlm, {}))), expected)


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        ({"bert.embeddings.word_embeddings.weight": None}, {}, "word_embeddings"),
        ({"cls.predictions.bias": None}, {}, "cls.predictions"),
        ({"cls.predictions.transform.dense.bias": None}, {}, "transform.dense.bias"),
        ({"cls.other.weight": torch.ones(2)}, {}, "cls.other.weight"),
        ({}, {"tie_word_embeddings": False}, "decoder.weight"),
    ],
)
def test_a_masked_language_model_that_would_be_random_in_part_is_refused(
    changes: dict, config: dict, reason: str, foreign_mlm: Path
) -> None:
    rewrite(foreign_mlm, **changes)
    with_config(foreign_mlm, **config)
    with pytest.raises(UserError, match=rf"do not fit.*{reason}"):
        models.load_model(Checkpoint(foreign_mlm, {}))
