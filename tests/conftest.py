"""Shared, small and real: a tiny random BERT, a task made of words, and checkpoints of both."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models gain nothing from a second thread, and spinning ones cost a lot on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a shell starts with & ignores Ctrl-C, and so would the runs that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

import helpers  # noqa: E402 - its environment variables must be set before the stack is imported
from helpers.stops import Checkpoint, OnnxModel  # noqa: E402
from helpers.tasks import Task  # noqa: E402

TINY_EPOCHS = 4


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random 2-layer BERT with MiniLM's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from helpers.models import embedded_minilm

    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(embedded_minilm()))
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Return a task a tiny model can learn: does the sentence speak of the sea or of the sky?"""
    folder = tmp_path_factory.mktemp("data")
    words = {"sea": ["wave", "boat", "fish", "salt"], "sky": ["cloud", "bird", "star", "wind"]}
    rows = [
        f"a {a} and a {b} number {i},{label}"
        for i in range(14)
        for label, nouns in words.items()
        for a, b in zip(nouns, nouns[1:] + nouns[:1], strict=True)
    ]
    for name, part in (("train", rows[:64]), ("validation", rows[64:])):
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *part]) + "\n")
    return helpers.load_task(
        "sea-or-sky",
        train_file=folder / "train.csv",
        validation_file=folder / "validation.csv",
        max_seq_length=16,
    )


@pytest.fixture(scope="session")
def tiny_files(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the flags that name the tiny task's rows as files."""
    folder, flags = tmp_path_factory.mktemp("files"), []
    for split in ("train", "validation"):
        rows = getattr(tiny_task, split).to_pandas()
        rows["label"] = [tiny_task.labels[number] for number in rows["label"]]
        rows.to_csv(folder / f"{split}.csv", index=False)
        flags += [f"--{split}_file", str(folder / f"{split}.csv")]
    return flags


@pytest.fixture(scope="session")
def stops_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder the shared checkpoints lie in."""
    return tmp_path_factory.mktemp("stops")


@pytest.fixture(scope="session")
def dense(tiny_model: Path, tiny_task: Task, stops_folder: Path) -> Checkpoint:
    """Return a plain fine-tune of the tiny model."""
    return helpers.fine_tune(
        tiny_task,
        tiny_model,
        stops_folder / "dense",
        num_train_epochs=TINY_EPOCHS,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        disable_tqdm=True,
    )


@pytest.fixture(scope="session")
def pruned(dense: Checkpoint, tiny_task: Task, stops_folder: Path) -> Checkpoint:
    """Return the tiny model pruned to 80 %."""
    recipe = helpers.load_recipe("minilm-6layers_prune80", num_epochs=TINY_EPOCHS)
    return helpers.fine_tune(
        tiny_task,
        dense,
        stops_folder / "pruned",
        recipe=recipe,
        per_device_train_batch_size=8,
        disable_tqdm=True,
    )


@pytest.fixture(scope="session")
def sparse_int8(dense: Checkpoint, tiny_task: Task, stops_folder: Path) -> Checkpoint:
    """Return the tiny model pruned to 80 %, quantized, and taught by the dense one."""
    recipe = helpers.load_recipe("minilm-6layers_prune80_quant", num_epochs=TINY_EPOCHS)
    return helpers.fine_tune(
        tiny_task,
        dense,
        stops_folder / "sparse_int8",
        recipe=recipe,
        distill_teacher=dense,
        per_device_train_batch_size=8,
        disable_tqdm=True,
    )


@pytest.fixture(scope="session")
def integer(sparse_int8: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny sparse int8 model as SparseML exports it."""
    from helpers import export, models

    file = tmp_path_factory.mktemp("integer") / "model.onnx"
    export.write_graph(models.load_model(sparse_int8), file, quantized=True)
    return file


@pytest.fixture(scope="session")
def both(
    sparse_int8: Checkpoint, tiny_task: Task, tmp_path_factory: pytest.TempPathFactory
) -> OnnxModel:
    """Return a proven export of the tiny sparse int8 model in both forms."""
    return helpers.export_onnx(
        sparse_int8, tiny_task, tmp_path_factory.mktemp("both") / "both", form="both"
    )


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other's crumbs are ten times slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
