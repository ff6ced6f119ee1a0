"""What notebook 7 shows: zeros by place, what is seen, and pictures of both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from test_upstream import TEXTS, flags, six_layers, sparse, transferred, upstream_task  # noqa: F401
from transformers import BertConfig, BertForMaskedLM

from helpers import models, plots, transfer_views
from helpers.stops import Checkpoint
from helpers.upstream import Upstream

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def texts(six_layers: Path) -> Upstream:  # noqa: F811
    return upstream_task(six_layers)


def test_zeros_are_compared_by_place(
    sparse: Checkpoint,  # noqa: F811
    transferred: Checkpoint,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = transfer_views.zeros_kept(sparse, transferred)
    assert len(table) == 36
    assert (table["zeros before"] == table["still zero"]).all()
    network = models.load_model(sparse)
    matrix = network.encoder.layer[0].output.dense.weight
    with torch.no_grad():
        # As many zeros as before, but in other places.
        matrix.copy_(matrix.roll(1, dims=1))
    load = models.load_model
    monkeypatch.setattr(models, "load_model", lambda c: load(c) if c is sparse else network)
    moved = transfer_views.zeros_kept(sparse, transferred).set_index("matrix")
    row = moved.loc["encoder.layer.0.output.dense"]
    assert row["zeros before"] == row["zeros after"] > row["still zero"]


def test_zeros_that_others_made_are_compared_too(
    sparse: Checkpoint,  # noqa: F811
    transferred: Checkpoint,  # noqa: F811
    tmp_path: Path,
) -> None:
    # As oBERT comes from the hub: with the head of the language model it was.
    published = BertForMaskedLM(BertConfig.from_pretrained(sparse.folder))
    published.bert.load_state_dict(models.load_model(sparse).state_dict(), strict=False)
    published.save_pretrained(tmp_path / "theirs")
    theirs = transfer_views.zeros_kept(tmp_path / "theirs", transferred)
    assert_frame_equal(theirs, transfer_views.zeros_kept(sparse, transferred))


def test_neighbours_are_those_of_either_model(
    texts: Upstream,
    sparse: Checkpoint,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = transfer_views.neighbours(texts, sparse, rows=4)
    assert len(table) == 4
    drawn = np.random.default_rng(0).normal
    for seen, alike in (
        (lambda w: np.array(w["labels"]), 1),
        (lambda w: drawn(size=(len(w), 8)), 0),
    ):
        monkeypatch.setattr(transfer_views, "embeddings", lambda _, w, __, seen=seen: seen(w))
        table = transfer_views.neighbours(texts, sparse, rows=99)
        assert (table["same"].mean() == 1) == alike
        columns = table["nearest to the dense model"], table["nearest to the sparse one"]
        assert (columns[0] == columns[1]).all() == alike
    assert all(len(text.split()) >= transfer_views.WORDS for text in table["text"])


def test_a_deeper_cut_sees_less(texts: Upstream) -> None:
    curve = transfer_views.cut_at_once(texts, levels=(0.1, 0.9))
    assert curve.score[0] > curve.score[1]
    figure = transfer_views.score_against_sparsity(curve, dense=1.0, label="cosine (%)")
    (axis,) = figure.axes
    assert "(%)" in axis.get_xlabel() and axis.get_ylabel() == "cosine (%)"
    assert axis.lines[0].get_marker() in plots.MARKS


def test_pruning_from_scratch_pays_for_the_dense_model_too() -> None:
    stops = [
        Checkpoint(Path(), {"minutes": minutes, "metrics": {"f1": score}})
        for minutes, score in ((2.0, 0.8), (3.0, 0.7), (1.5, 0.75))
    ]
    table = transfer_views.ways(*stops, metric="f1")
    assert list(table.minutes) == [2.0, 5.0, 1.5]
    left, right = transfer_views.price_and_worth(table).axes
    assert [bar.get_width() for bar in left.patches] == [2.0, 5.0, 1.5]
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], [80, 70, 75])


def test_stored_ways_leave_out_int8_and_what_had_no_teacher(tmp_path: Path) -> None:
    names = ["dense", "prune80", "prune90", "transfer90", "transfer90_quant", "transfer80_alone"]
    stops = {name: {"metrics": {"f1": i / 10, "recall": 0.0}} for i, name in enumerate(names)}
    file = tmp_path / "stored.json"
    file.write_text(json.dumps({"tasks": {"ner": stops}}))
    table, dense = transfer_views.stored_ways("ner", file)
    assert dense == 0.0
    assert table.to_numpy().tolist() == [
        ["pruned for the task", 0.8, 0.1],
        ["pruned for the task", 0.9, 0.2],
        ["sparse transfer", 0.9, 0.3],
    ]


def test_the_file_that_notebook_7_draws_is_there() -> None:
    table, dense = transfer_views.stored_ways("sst2")
    assert sorted(table.groupby("way").size()) == [2, 2]
    assert 0.5 < table.score.min() < dense < 1
