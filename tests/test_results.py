"""Results: what runs wrote is collected, stored, and is what the pages say."""

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from helpers import environment, published, result_tables, results, score_tables, stops
from helpers.__main__ import main
from helpers.errors import UserError
from helpers.measurements import Measurement, save
from helpers.stops import Checkpoint

STORED = sorted(results.FOLDER.glob("*.json"))
README = results.PAGES[0].read_text()
PAGES = "\n\n".join(page.read_text() for page in results.PAGES)
TREES = "\n".join(
    re.findall(
        r"```text\n(.*?)```",
        README[README.index("## What is where") :]
        + (environment.REPOSITORY / "helpers" / "README.md").read_text(),
        re.DOTALL,
    )
)
ENGINE = ("openvino", 1)
DESCRIBED = ("helpers/*.py", "helpers/commands/*.py", "notebooks/*.ipynb", "tools/*")


def run_note(accuracy: float, finished: str, **more: Any) -> dict[str, Any]:
    """Return what training writes into run.json, as far as it matters here."""
    return {
        "metrics": {"accuracy": accuracy, "f1_macro": accuracy},
        "minutes": 2.5,
        "steps": 376,
        "rows": {"train": 6000, "validation": 1000},
        "recipe": None,
        "peak_memory_gb": 2.3,
        "request": {"seed": 42},
        "finished": finished,
        "history": [{"loss": 1.0}],
        **more,
    }


def write_stop(folder: Path, note: str, content: dict[str, Any]) -> None:
    """Write a finished stop, as training and export do."""
    with stops.writing(folder) as scratch:
        (scratch / "model.onnx").write_text(folder.name * 100_000)
        stops.write_note(scratch, note, content)


def timed(model: str, engine: str, median: float | None, error: str | None = None) -> Measurement:
    """Return a measurement of batch 1, or a row that failed."""
    times = {} if median is None else {"median_ms": median, "p10_ms": median - 1, "p90_ms": 20.0}
    return Measurement(model, engine, 1, 128, 2, "0" * 64, error=error, **times)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of two runs, one export and its timings, at laptop size."""
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path))
    monkeypatch.delenv("TUTORIAL_TIER", raising=False)
    folder = tmp_path / "docs-library" / "laptop"
    write_stop(folder / "dense", "run.json", run_note(0.80, "2026-01-02 09:00:00"))
    write_stop(folder / "a_late_one", "run.json", run_note(0.76, "2026-01-02 10:00:00"))
    checks = [{"check": "int8 products", "expected": 0, "found": 0}]
    write_stop(folder / "dense-onnx", "proof.json", {"checks": checks})
    rows = [
        timed("dense", "onnxruntime", 18.0),
        timed("a_late_one", "deepsparse", 4.5),
        timed("a_late_one", "onnxruntime", None, "the child ended\nby signal 6"),
    ]
    save(rows, folder / "benchmark.json", environment.describe())
    return folder


def test_collect_gathers_stops_proofs_and_timings(runs: Path) -> None:
    found = results.collect("docs-library")
    assert set(found["stops"]) == {"dense", "a_late_one"}
    assert set(found["stops"]["dense"]) == set(results.KEPT), "no history, no list of files"
    assert found["proofs"]["dense-onnx"][0]["check"] == "int8 products"
    assert len(found["benchmark"]["measurements"]) == 3
    assert (found["task"], found["tier"]) == ("docs-library", "laptop")
    assert {"machine", "versions", "python"} <= set(found)


def test_minutes_are_those_the_notebooks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "# Title\n**Minutes:** 2.5, measured on a CPU, 2 cores (laptop size)"
    (tmp_path / "01_x.ipynb").write_text(json.dumps({"cells": [{"source": [header]}]}))
    monkeypatch.setattr(results, "NOTEBOOKS", tmp_path)
    assert results.notebook_minutes("laptop") == {"01_x": 2.5}
    assert results.notebook_minutes("smoke") == {}


def test_a_second_run_stands_beside_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "PAGES", ())
    write_stop(tmp_path / "runs" / "upstream" / "upstream80", "run.json", run_note(0.9, "2026"))
    assert main(["results", "--transfer", "--name", "second", "--command", "bash x.sh"]) == 0
    stored = json.loads((tmp_path / "second.json").read_text())
    assert (stored["command"], set(stored["upstream"])) == ("bash x.sh", {"upstream80"})
    assert not (tmp_path / "sparse_transfer.json").exists()
    assert main(["results", "--name", "second"]) == 2


def test_a_damaged_stop_is_not_collected(runs: Path) -> None:
    (runs / "dense" / "model.onnx").write_text("other")
    with pytest.raises(UserError, match="was changed after the run ended"):
        results.collect("docs-library")


@pytest.mark.usefixtures("runs")
def test_collecting_what_was_never_run_is_refused() -> None:
    with pytest.raises(UserError, match="Nothing was run for sst2 at laptop size"):
        results.collect("sst2")


@pytest.mark.usefixtures("runs")
def test_accuracy_table_is_in_the_order_of_training() -> None:
    lines = result_tables.accuracy_table(results.collect("docs-library")).splitlines()
    assert lines[2] == "| dense | 0.8000 | 1.000 | 2.5 | 1.0 | 0.0 |"
    assert lines[3] == "| a_late_one | 0.7600 | 0.950 | 2.5 | - | - |"


@pytest.mark.usefixtures("runs")
def test_speed_table_tells_factors_and_failures() -> None:
    lines = result_tables.speed_table(results.collect("docs-library")).splitlines()
    assert lines[2] == "| dense | onnxruntime | 1 | 18.0 | 17.0 to 20.0 | 1.0 |"
    assert lines[3] == "| a_late_one | deepsparse | 1 | 4.5 | 3.5 to 20.0 | 4.0 |"
    assert lines[4] == "| a_late_one | onnxruntime | 1 | - | - | the child ended |"
    assert len({line.count("|") for line in lines}) == 1, "every row has every column"


def test_speed_table_without_the_row_to_compare_with(runs: Path) -> None:
    rows = [timed("dense", "onnxruntime", None, "not here"), timed("dense", "deepsparse", 9.0)]
    save(rows, runs / "benchmark.json", environment.describe())
    table = result_tables.speed_table(results.collect("docs-library"))
    assert "| dense | deepsparse | 1 | 9.0 | 8.0 to 20.0 | - |" in table


def test_without_timings_there_is_no_speed_table(runs: Path) -> None:
    (runs / "benchmark.json").unlink()
    assert result_tables.speed_table(results.collect("docs-library")) == ""


@pytest.mark.usefixtures("runs")
def test_stored_results_become_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    file = results.store(results.collect("docs-library"), "make tutorial")
    assert file.name == "docs-library_laptop.json"
    text = "before\n<!-- results: docs-library_laptop -->\nold\n<!-- end -->\nafter\n"
    new = results.rendered(text)
    assert new.startswith("before\n<!-- results: docs-library_laptop -->\n| model |")
    assert new.endswith("Command: `make tutorial`.\n<!-- end -->\nafter\n")
    assert "old" not in new
    assert environment.machine()["cpu"] in new
    assert results.rendered(new) == new


def test_training_speed_becomes_a_table() -> None:
    steps = {"plain": {"median": 900, "least": 880, "most": 950}}
    steps["quick"] = {"median": 300, "least": 290, "most": 310}
    found = {"ms_a_step": steps, "accuracy": {"quick": 0.76}, "minutes": {"quick": 2.5}}
    rows = result_tables.training_table(found).splitlines()[2:]
    assert rows == [
        "| plain | 900 | 880 to 950 | 1.0 | - | - |",
        "| quick | 300 | 290 to 310 | 3.0 | 0.7600 | 2.5 |",
    ]


def test_timings_of_texts_become_a_table(tmp_path: Path) -> None:
    row = {"model": "m", "engine": "openvino", "lengths": [48, 64], "error": None}
    times = {"mean_ms": 4.26, "p10_ms": 3.0, "p90_ms": 6.04, "texts_per_second": 220.4}
    more = {"tokenize_share": 0.0333, "labels_changed": 0, "processes": 2, "memory_mb": 300.2}
    one = {"lengths": [128], "labels_changed": None, "processes": 1}
    failed = {"engine": "deepsparse", "error": "DeepSparse died\nfar away"}
    rows = [row | times | more | one, row | times | more, row | failed]
    found = {"verdict": "half of them are short\nmore", "lengths": {}, "measurements": rows}
    file = tmp_path / "texts.json"
    file.write_text(json.dumps({**found, "command": "texts", **environment.describe()}))
    lines = results.section(file).splitlines()
    assert lines[0] == "half of them are short"
    assert lines[4:7] == [
        "| m | openvino | 128 | 4.3 | 3.0 to 6.0 | 220 | 3.3% | - | 1, 300 |",
        "| m | openvino | 48, 64 | 4.3 | 3.0 to 6.0 | 220 | 3.3% | 0 | 2, 300 |",
        "| m | deepsparse | 48, 64 | - | - | - | - | - | DeepSparse died |",
    ]
    assert len({line.count("|") for line in lines[2:7]}) == 1, "every row has every column"
    assert lines[-1].endswith("Command: `texts`.")


def test_the_way_to_the_first_plot_becomes_a_sentence(tmp_path: Path) -> None:
    times = {"cached": {"set-up": 100.0, "notebook": 50.0, "together": 150.0}}
    file = tmp_path / "first_plot.json"
    found = {"seconds_to_first_plot": times, **environment.describe(), "command": "c"}
    file.write_text(json.dumps(found))
    line = results.section(file).partition("\n")[0]
    assert line == "From `git clone` to the first plot: 2.5 minutes (cached), set-up included."


def test_training_speed_names_the_metric_it_was_scored_by() -> None:
    ms = {"slow": {"median": 30, "least": 29, "most": 31}}
    ms["quick"] = {"median": 10, "least": 9, "most": 11}
    found = {"ms_a_step": ms, "metric": "f1", "f1": {"quick": 0.5}, "minutes": {"quick": 1.0}}
    head, _, slow, quick = result_tables.training_table(found).splitlines()
    assert head.endswith("| times as fast | f1 | minutes |")
    assert (slow, quick) == (
        "| slow | 30 | 29 to 31 | 1.0 | - | - |",
        "| quick | 10 | 9 to 11 | 3.0 | 0.5000 | 1.0 |",
    )


def test_an_idle_recipe_becomes_a_sentence(tmp_path: Path) -> None:
    found = {"ratio": {"median": 1.012, "least": 0.99, "most": 1.04}, "ms_idle_recipe": 580.0}
    found |= {"rounds": 4, "steps": 64, "command": "speed", **environment.describe()}
    file = tmp_path / "idle_recipe.json"
    file.write_text(json.dumps(found))
    first, last = results.section(file).split("\n\n")
    assert "1.01 times as long" in first
    assert "(0.99 to 1.04; 4 rounds of 64 steps, turn by turn)" in first
    assert last.endswith("Command: `speed`.")


def test_other_tasks_share_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    marks = "<!-- results: tasks -->\n<!-- end -->"
    assert results.UNMEASURED in results.rendered(marks)
    common = {"rows": {"train": 4000, "validation": 400}, "minutes": 2.04}
    stops = {
        "sparse": {"metrics": {"f1": 0.88, "recall": 0.1}, "finished": "2026-02", **common},
        "dense": {"metrics": {"f1": 0.9, "recall": 0.2}, "finished": "2026-01", **common},
    }
    found = {"command": "run_ner", "task": "conll2003", "stops": stops, **environment.describe()}
    for name in ("conll2003_full", "sst2_full"):
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    lines = results.rendered(marks).splitlines()
    assert [line for line in lines if line.startswith("| conll")] == [
        "| conll2003 | 4,000 / 400 | f1 | dense | 0.9000 | 1.000 | 2.0 |",
        "| conll2003 | 4,000 / 400 | f1 | sparse | 0.8800 | 0.978 | 2.0 |",
    ]
    assert lines[-2].endswith("Command: `run_ner`.")


def test_a_section_without_results_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    marks = "<!-- results: a -->\n<!-- end -->\n<!-- results: b -->\nold\n<!-- end -->"
    line = results.UNMEASURED
    expected = (
        f"<!-- results: a -->\n{line}\n<!-- end -->\n<!-- results: b -->\n{line}\n<!-- end -->"
    )
    assert results.rendered(marks) == expected


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_stored_results_say_where_they_come_from(file: Path) -> None:
    found = json.loads(file.read_text())
    assert found["command"]
    assert {"cpu", "cores"} <= set(found["machine"])
    assert {"torch", "sparseml"} <= set(found["versions"])


def test_the_pages_say_what_the_results_say() -> None:
    """Run `make results` where this fails."""
    sections = re.findall(r"<!-- results: (\S+) -->", PAGES)
    assert sections == [
        "first_plot",
        "kept",
        "docs-library_laptop",
        "sst2_full",
        "tasks",
        "sparse_transfer",
        "sparse_transfer_again",
        "sparse_transfer_gpu",
        "sparse_transfer_gpu_short",
        "published",
        "ablations",
        "benchmark_minilm",
        "benchmark_bert-base",
        "profile_minilm",
        "graph_forms",
        "texts_docs-library",
        "training_speed",
        "recipe_speed",
        "idle_recipe",
        "training_profile",
    ]
    assert results.rendered(PAGES) == PAGES


def speed_words(name: str) -> list[str]:
    """Return sparse int8's speed-ups of a stored run as words: over fp32, over dense int8."""
    rows = json.loads((results.FOLDER / f"{name}.json").read_text())["measurements"]
    times = {(r["batch_size"], r["engine"], r["model"]): r["median_ms"] for r in rows}
    against: list[list[float]] = [[], []]
    for batch in (1, 16):
        sparse = times[batch, "deepsparse", "sparse90-int8"]
        int8 = [ms for (b, _, m), ms in times.items() if ms and b == batch and "dense-" in m]
        against[0].append(times[batch, "onnxruntime", "dense"] / sparse)
        against[1].append(min(int8) / sparse)
    return [f"{a:.1f} and {b:.1f} times" for a, b in against]


@pytest.mark.parametrize("name", ["benchmark_minilm", "benchmark_bert-base"])
def test_the_words_about_speed_are_what_is_stored(name: str) -> None:
    for page in results.PAGES:
        for words in speed_words(name):
            assert words in " ".join(page.read_text().split()), page


CHANCE_ON_SST2 = math.sqrt(2 * 0.88 * 0.12 / 872)  # standard error of a difference


def gpu_scores(name: str) -> dict[tuple[str, str], float]:
    """Return the first metric of each stop of a stored file, by task and stop."""
    tasks = json.loads((results.FOLDER / f"{name}.json").read_text())["tasks"]
    return {
        (task, stop): next(iter(run["metrics"].values()))
        for task, stops in tasks.items()
        for stop, run in stops.items()
    }


def test_the_words_of_notebook_6_are_what_is_stored() -> None:
    words = (environment.REPOSITORY / "notebooks" / "06_benchmark_deepsparse.ipynb").read_text()
    rows = json.loads((results.FOLDER / "benchmark_minilm.json").read_text())["measurements"]
    ms = {r["model"]: r["median_ms"] for r in rows if (r["engine"], r["batch_size"]) == ENGINE}
    dense, sparse = ms["dense-qat"], ms["sparse80-int8"]
    assert f"has {dense:.1f} ms for the dense model and {sparse:.1f} for the sparse one" in words


def test_the_words_of_notebook_7_are_what_is_stored() -> None:
    words = (environment.REPOSITORY / "notebooks" / "07_sparse_transfer.ipynb").read_text()
    score = gpu_scores("sparse_transfer_gpu")
    assert (
        "Transfer is ahead at both, by 1.6 and by 0.7 points, after 2.5 epochs against 8." in words
    )
    lead = [score["sst2", f"transfer{n}"] - score["sst2", f"prune{n}"] for n in (80, 90)]
    assert [f"{100 * points:.1f}" for points in lead] == ["1.6", "0.7"]
    assert "By chance alone two scores on 872 rows easily differ by 1.6 points" in words
    assert "pruning had 4 epochs and transfer 2, has pruning ahead by 0.2 points" in words
    assert behind("sparse_transfer_gpu_short", "sst2") == ["0.2"]
    assert f"{100 * CHANCE_ON_SST2:.1f}" == "1.6"
    assert (
        "2.7 points behind on names in texts (CoNLL-2003), 5.1 on paraphrases (MRPC, where it is "
        "hardly better than one answer for all) and 9.5"
    ) in words
    assert gpu_scores("sparse_transfer_gpu_short")["mrpc", "transfer80"] < 0.665 + 0.01
    with_states = gpu_scores("sparse_transfer")
    kept = [shares(with_states, t, "transfer80")[0] for t in ("sst2", "stsb", "conll2003", "mrpc")]
    assert (
        "keeps {} of the dense score on SST-2, {} on STS-B, {} on CoNLL-2003 and {} on MRPC."
    ).format(*kept) in words
    assert behind("sparse_transfer_gpu_short", "conll2003", "mrpc", "squad") == [
        "2.7",
        "5.1",
        "9.5",
    ]


def behind(name: str, *tasks: str) -> list[str]:
    """Return by how many points transfer is behind pruning for the task, at 80 %."""
    score = gpu_scores(name)
    return [f"{100 * (score[t, 'prune80'] - score[t, 'transfer80']):.1f}" for t in tasks]


def test_the_words_about_the_gpu_are_what_is_stored() -> None:
    words = " ".join(PAGES.split())
    score, short = gpu_scores("sparse_transfer_gpu"), gpu_scores("sparse_transfer_gpu_short")
    assert "scores 1.6 points above pruning for the task, after 2.5 epochs against 8" in words
    assert behind("sparse_transfer_gpu", "sst2", "stsb") == ["-1.6", "4.6"]
    assert "pruning for 4 epochs, in the table below, is only 0.7 points behind" in words
    assert f"{100 * (score['sst2', 'transfer80'] - short['sst2', 'prune80']):.1f}" == "0.7"
    assert (
        "by 4.6 points on STS-B, and in the table below by 2.7 on CoNLL-2003, 5.1 on MRPC" in words
    )
    assert "loses nothing more to int8" in words
    assert score["sst2", "transfer80_quant"] >= score["sst2", "transfer80"]
    for task in ("conll2003", "stsb", "go_emotions", "ag_news"):
        assert score[task, "prune80_quant"] / score[task, "dense"] >= 0.97
    assert f"{score['mrpc', 'prune80_quant'] / score['mrpc', 'dense']:.3f}" == "0.905"
    assert f"{score['mrpc', 'prune80'] / score['mrpc', 'dense']:.3f}" == "0.908"
    assert "`transfer80_quant` keeps 0.986 and `transfer90_quant` 0.967; `prune80_quant`" in words
    stops = ("transfer80_quant", "transfer90_quant", "prune80_quant", "prune90_quant")
    kept = [f"{score['sst2', stop] / score['sst2', 'dense']:.3f}" for stop in stops]
    assert kept == ["0.986", "0.967", "0.971", "0.957"]
    assert "1.4 points lower" in words and "1.3 points higher" in words and "both within" in words
    alone = score["sst2", "prune80"] - score["sst2", "prune80_alone"]
    surgeon = score["sst2", "prune90_obs"] - score["sst2", "prune90"]
    assert [f"{100 * alone:.1f}", f"{100 * surgeon:.1f}"] == ["1.4", "1.3"]
    assert max(alone, surgeon) < CHANCE_ON_SST2
    assert "the same recipe twice, 1.3 points apart" in words
    assert f"{100 * (short['stsb', 'prune80'] - score['stsb', 'prune80']):.1f}" == "1.3"


def test_the_words_about_transfer_are_what_is_stored() -> None:
    words = " ".join(PAGES.split())
    score, gpu = gpu_scores("sparse_transfer"), gpu_scores("sparse_transfer_gpu")
    stops = ("transfer80", "transfer80_quant", "transfer90", "transfer90_quant")
    kept = [score["sst2", stop] / score["sst2", "dense"] for stop in stops]
    assert min(kept[:2]) >= 0.99 and min(kept[2:]) >= 0.98
    first, int8, more, both = shares(score, "sst2", *stops)
    assert f"keeps {first} of the dense accuracy at 80 % zeros and {int8} with int8" in words
    assert f"with int8, {more} and {both} at 90 %; taught by the answers alone" in words
    assert "it is {} and {}, {} and {}.".format(*shares(gpu, "sst2", *stops)) in words
    assert f"dense is {score['sst2', 'dense']:.3f}, and two scores" in words
    old = gpu_scores("sparse_transfer_gpu_short")
    for task, sentence in (
        ("ag_news", "AG News keeps {} of the dense score at 80 % zeros and {} with int8"),
        ("stsb", "STS-B {} and {}"),
        ("conll2003", "CoNLL-2003 {} and {}"),
        ("mrpc", "MRPC {} and {}, where half"),
    ):
        assert sentence.format(*shares(score, task, *stops[:2])) in words
    for task, sentence in (
        ("ag_news", "At 90 % AG News keeps {} and {}, and three others lose more"),
        ("conll2003", "CoNLL-2003 keeps {} and {}, STS-B"),
        ("stsb", "STS-B {} and {}, and"),
        ("mrpc", "MRPC {} and {}, hardly better than one answer for all."),
    ):
        run = [stop for stop in stops[2:] if (task, stop) in score]
        assert sentence.format(*shares(score, task, *run)) in words
    assert score["mrpc", "transfer90_quant"] < 0.665 + 0.02
    alone = f"On MRPC one answer for all keeps {0.665 / score['mrpc', 'dense']:.2f}"
    assert alone in " ".join(README.split())
    before = shares(old, "mrpc", *stops[:2])
    assert "no hidden states kept {} and {}.".format(*before) in words
    (kept,), (halved,) = shares(score, "squad", "transfer80"), shares(old, "squad", "transfer80")
    assert f"SQuAD keeps {kept} at 80 % (int8 was not run); half taught by labels" in words
    assert f"it kept {halved}, and pruned for the task it keeps 0.955" in words
    tasks = json.loads((results.FOLDER / "sparse_transfer.json").read_text())["tasks"]["sst2"]
    assert [tasks[stop]["recipe"] for stop in stops] == 2 * [
        "minilm-6layers_transfer_states",
        "minilm-6layers_quant_states",
    ]
    assert [tasks[stop]["request"]["dropout"] for stop in stops] == [0.0] * 4


def shares(score: dict[tuple[str, str], float], task: str, *stops: str) -> list[str]:
    """Return what stops of a task keep of its dense score, in words."""
    return [f"{score[task, stop] / score[task, 'dense']:.3f}" for stop in stops]


def test_the_words_about_the_second_run_are_what_is_stored() -> None:
    words = " ".join(PAGES.split())
    score, first = gpu_scores("sparse_transfer_again"), gpu_scores("sparse_transfer")
    stops = ("transfer80", "transfer80_quant")
    seeds = {
        task: {
            stop: [score[task, f"{stop}{seed}"] for seed in ("", "-seed43", "-seed44")]
            for stop in ("dense", *stops)
        }
        for task in ("stsb", "mrpc")
    }
    means = {("mrpc", stop): mean(found) for stop, found in seeds["mrpc"].items()}
    kept = [*shares(score, "conll2003", *stops), *shares(means, "mrpc", *stops)]
    kept += shares(first, "mrpc", *stops)
    sentence = (
        "CoNLL-2003 keeps {} of the dense score at 80 % zeros and {} with int8, MRPC over three "
        "seeds {} and {} ({} and {} above with one)."
    )
    assert sentence.format(*kept) in words
    single, blocks = score["stsb", "transfer80"], score["stsb", "transfer80_block4"]
    assert f"scores {single:.3f} with single zeros and this seed, scores {blocks:.3f}" in words
    dense = score["stsb", "dense"], first["stsb", "dense"]
    assert "is at {:.3f} here and at {:.3f} above".format(*dense) in words
    sentence = "over three seeds it is at {:.3f}, and the sparse one at {:.3f}, {:.3f} with int8"
    assert sentence.format(*map(mean, seeds["stsb"].values())) in words
    spreads = [100 * (max(one["dense"]) - min(one["dense"])) for one in seeds.values()]
    apart = "whose own seeds lie {:.1f} points apart; those of MRPC lie {:.1f} apart"
    assert apart.format(*spreads) in words
    blocks = shares(score, "sst2", "transfer80_block4", "transfer80_block4_quant")
    dense = score["sst2", "dense"], first["sst2", "dense"]
    sentence = (
        "it keeps {}, and {} with int8, of a dense model that is at {:.3f} here and at {:.3f} above"
    )
    assert sentence.format(*blocks, *dense) in words
    found = json.loads((results.FOLDER / "sparse_transfer_again.json").read_text())["upstream"]
    alike = [found[f"upstream80{m}"]["metrics"]["cosine_similarity"] for m in ("_block4", "")]
    assert "({:.3f} against {:.3f})".format(*alike) in words


def test_what_is_kept_by_hand() -> None:
    """The best run of each way, against the dense model of its own run; nothing where none was."""

    def run(**scores: float) -> dict[str, Any]:
        return {name: {"metrics": {"f1": score, "other": 1.0}} for name, score in scores.items()}

    table = score_tables.kept_table(
        [
            ("a", run(dense=0.8, prune80=0.4, prune80_quant_distill=0.6, prune80_alone=0.8)),
            ("a", run(dense=0.4, prune80=0.3, transfer90=0.1)),
            ("b", run(dense=0.5)),
            # Each seed has a dense model of its own; 43 alone would be the best there is.
            (
                "c",
                run(dense=0.8, transfer80=0.4, **{"dense-seed43": 0.5, "transfer80-seed43": 0.5}),
            ),
        ]
    )
    assert table.splitlines()[0].startswith("| data | pruned 80 % | pruned 80 %, int8 |")
    assert table.splitlines()[2:] == [
        "| a | 0.750 | 0.750 | - | - | - | - | 0.250 | - |",
        "| b | - | - | - | - | - | - | - | - |",
        "| c | - | - | - | - | 0.750 | - | - | - |",
    ]
    lone = run(**{"dense-seed43": 0.5, "transfer80-seed43": 0.4})
    assert "| d | - | - | - | - | 0.800 | - |" in score_tables.kept_table([("d", lone)])
    assert "| d | - | - | - | - | - | - |" in score_tables.kept_table([("d", run(transfer80=1.0))])


def test_published_figures_stand_beside_ours_of_the_same_way() -> None:
    ours = {"dense": 0.8, "prune80": 0.4, "transfer90": 0.6}
    run = {name: {"metrics": {"f1": score}} for name, score in ours.items()}
    rows = published.published_table([("squad", run)]).splitlines()[2:]
    assert rows[0].startswith("| squad | pruned 80 % | 88.54 | 89.04 | 1.006 | 0.500 | [oBERT](")
    assert rows[-2].startswith("| squad | transfer 90 % | - | 87.25 | - | 0.750 | [Prune Once")
    assert rows[-1].startswith("| sst2 | transfer 90 % | - | 90.88 | - | - | [Prune Once")


def test_seeds_share_a_row() -> None:
    common = {"rows": {"train": 1000, "validation": 10}, "finished": "2026-11-28"}
    stops = {
        name: {"metrics": {"f1": score}, "minutes": minutes, **common}
        for name, score, minutes in (
            ("dense", 0.8, 1.0),
            ("transfer80", 0.4, 2.0),
            ("dense-seed43", 0.5, 3.0),
            ("transfer80-seed43", 0.5, 6.0),
        )
    }
    _, _, *rows = score_tables.stops_table({"a": stops}).splitlines()
    assert rows == [
        "| a | 1,000 / 10 | f1 | dense | 0.6500 (2 seeds, 0.5000 to 0.8000) | 1.000 | 2.0 |",
        "| a | 1,000 / 10 | f1 | transfer80 | 0.4500 (2 seeds, 0.4000 to 0.5000) | 0.750 | 4.0 |",
    ]


def test_the_words_about_mrpc_are_what_is_stored() -> None:
    words = " ".join(PAGES.split())
    stops = json.loads((results.FOLDER / "mrpc_full.json").read_text())["stops"]
    dense, sparse, int8 = (
        stops[name]["metrics"]["accuracy"] for name in ("dense", "prune80", "prune80_quant_distill")
    )
    assert f"MRPC keeps {sparse / dense:.3f} of its dense accuracy so at 80 %" in words
    assert f"and {int8 / dense:.3f} in int8" in words
    assert int8 >= 0.97 * dense
    recipes = [stops[name]["recipe"] for name in ("prune80", "prune80_quant_distill")]
    assert recipes == ["minilm-6layers_obs80_states", "minilm-6layers_quant_states"]
    epochs = stops["prune80"]["request"]["epochs"]
    assert f"at 80 % after {epochs:g} epochs" in words
    gpu = json.loads((results.FOLDER / "sparse_transfer_gpu.json").read_text())["tasks"]["mrpc"]
    score = {name: stop["metrics"]["accuracy"] for name, stop in gpu.items()}
    kept = [score[name] / score["dense"] for name in ("prune80", "prune80_quant")]
    more = gpu["prune80"]["request"]["epochs"]
    assert f"answers alone, {kept[0]:.3f} after {more:g}, and {kept[1]:.3f}" in words


def test_the_words_about_squad_are_what_is_stored() -> None:
    words = " ".join(PAGES.split())
    stops = json.loads((results.FOLDER / "squad_full.json").read_text())["stops"]
    dense, sparse, int8 = (
        stops[name]["metrics"] for name in ("dense", "prune80", "prune80_quant_distill")
    )
    assert f"keeps {sparse['f1'] / dense['f1']:.3f} of its dense F1 so at 80 %" in words
    assert f"and {int8['f1'] / dense['f1']:.3f} in int8" in words
    assert int8["f1"] >= 0.97 * dense["f1"]
    assert stops["prune80"]["recipe"] == "minilm-6layers_obs80_states"
    gpu = json.loads((results.FOLDER / "sparse_transfer_gpu_short.json").read_text())
    by_size = gpu["tasks"]["squad"]
    kept = by_size["prune80"]["metrics"]["f1"] / by_size["dense"]["metrics"]["f1"]
    assert f"taught half by labels and half by answers, {kept:.3f} in 3 epochs" in words
    exact = (dense["exact_match"], sparse["exact_match"], int8["exact_match"])
    told = "Exact match, not in the table, is {:.3f} dense, {:.3f} at 80 % and {:.3f} in int8"
    assert told.format(*exact) in words
    epochs = [stops[n]["request"]["epochs"] for n in ("prune80", "prune80_quant_distill")]
    assert "{:g} epochs of pruning and {:g} of int8 had to do".format(*epochs) in words
    assert f"trained on {stops['prune80']['rows']['train']:,} questions" in words
    assert stops["prune80"]["rows"]["train"] == 4370 + 17823


def test_ways_of_pruning_are_averaged_over_their_seeds() -> None:
    found = {
        name: {"metrics": {"accuracy": accuracy}}
        for name, accuracy in (("dense", 0.8), ("obs-seed42", 0.6), ("obs-seed43", 0.7))
    }
    *_, dense, obs = score_tables.ablations_table({"ablations": found}).splitlines()
    assert dense.endswith("| 1 | 0.8000 | - | 1.000 |")
    assert obs.endswith("| 2 | 0.6500 | 0.6000 to 0.7000 | 0.812 |")


def test_the_words_about_ways_of_pruning_are_what_is_stored() -> None:
    words = " ".join(PAGES.split())
    assert "In so short a run cutting at once is ahead of magnitude's gradual schedule" in words
    stops = json.loads((results.FOLDER / "ablations.json").read_text())["ablations"]
    score = {name: stop["metrics"]["accuracy"] for name, stop in stops.items()}
    error = math.sqrt(0.75 * 0.25 / 1000)
    assert f"{100 * error:.1f} points, so small differences" in words
    chance = math.sqrt(2) * error
    assert score["one_shot-seed42"] > score["gradual-seed42"] + 2 * chance
    assert "The Optimal BERT Surgeon cuts on the same schedule and is as good as" in words
    assert abs(score["obs-seed42"] - score["one_shot-seed42"]) < chance
    assert "a scale for each output is worth nothing there over one a matrix" in words
    assert abs(score["int8_channel-seed42"] - score["int8_tensor-seed42"]) < chance
    assert min(score["int8_channel-seed42"], score["int8_tensor-seed42"]) > score["gradual-seed42"]
    seeds = {name.partition("-seed")[2] for name in score} - {""}
    assert seeds == {"42"} or "Only the first seed was run so far" not in words


def test_every_stored_result_is_explained() -> None:
    explained = (results.FOLDER / "README.md").read_text()
    assert not [file.name for file in STORED if f"`{file.name}`" not in explained]


def test_the_trees_name_every_file() -> None:
    named = Counter(line.split()[0] for line in TREES.splitlines() if line.strip())
    files = Counter(
        file.name for pattern in DESCRIBED for file in environment.REPOSITORY.glob(pattern)
    )
    assert not files - named, "a name that two folders have stands there twice"
    bare = [line for line in TREES.splitlines() if line.strip() and len(line.split()) < 2]
    assert not bare, "every line has its comment"


def test_the_trees_name_nothing_that_is_gone() -> None:
    named = re.findall(r"^ *([\w.-]+\.(?:py|md|ipynb|sh|toml|lock|yml))(?= )", TREES, re.MULTILINE)
    there = {
        file.name
        for pattern in ("*", "*/*", "helpers/commands/*")
        for file in environment.REPOSITORY.glob(pattern)
    }
    assert not set(named) - there


def test_the_readme_asks_for_the_disk_that_the_set_up_asks_for() -> None:
    setup = (environment.REPOSITORY / "tools" / "setup.sh").read_text()
    (needed,) = re.findall(r"^NEEDED_GB=(\d+)$", setup, re.MULTILINE)
    assert f"{needed} GB of disk" in README


def test_the_readme_says_the_end_of_life_early() -> None:
    opening = README[: README.index("## Start")]
    for fact in ("2 June 2025", "1.8.0", "1.9.0", "Python 3.11", "Linux", "production"):
        assert fact in opening, fact


def test_the_roof_shows_two_shapes_and_the_fastest_engine_of_each_model() -> None:
    row = {"model": "m", "engine": "e", "operations": 2.87, "needed": 0.41, "median_ms": 3.5}
    row |= {"least_ms": 0.6, "of_all": 1.16, "of_needed": 0.17}
    shapes = [(1, 128), (16, 128), (64, 128), (1, 384)]
    rows = [row | {"batch_size": b, "sequence_length": t} for b, t in shapes]
    rows.append(rows[0] | {"engine": "slow", "median_ms": 9.0})
    peaks = {"fp32": 200.0, "int8": 700.0, "memory": 30.0, "threads": 2}
    lines = result_tables.roof_table({"roofline": {"peaks": peaks, "rows": rows}}).splitlines()
    assert "200 (fp32) and 700 (int8)" in lines[0]
    assert lines[4:] == [
        f"| m | e | {batch} | 2.9 | 0.4 | 3.5 | 0.6 | 1.16 | 0.17 |" for batch in (1, 16)
    ]


def test_a_profile_is_one_column_a_model_and_adds_up() -> None:
    found = {"ms": {"dense, a": {"x": 3.0, "y": 1.25}, "sparse, b": {"x": 0.5, "y": 1.0}}}
    lines = result_tables.profile_table(found).splitlines()
    assert lines[0] == "| ms a call | dense, a | sparse, b |"
    assert lines[2:] == ["| x | 3.00 | 0.50 |", "| y | 1.25 | 1.00 |", "| together | 4.25 | 1.50 |"]


def test_a_reason_cannot_break_a_table() -> None:
    assert result_tables.reason("DeepSparse died: exit code 1 | Free memory: 9G\nmore") == (
        "DeepSparse died: exit code 1"
    )


def test_a_form_is_as_fast_against_the_first_by_hand() -> None:
    ms = {"1": {"median_ms": 4.0}}, {"1": {"median_ms": 2.0}}, {"1": {"error": "refused: no"}}
    forms = {
        name: {"accuracy": 0.9, "ms": found}
        for name, found in zip(("sparseml", "qdq", "other"), ms, strict=True)
    }
    lines = result_tables.forms_table(
        {"forms": {"minilm": forms}, "numbers": {"qdq": "uint8"}}
    ).splitlines()
    assert lines[2] == "| sparseml | 0.9000 | 4.00 (1.00) |"
    assert lines[3] == "| qdq (uint8) | 0.9000 | 2.00 (2.00) |"
    assert lines[4].startswith("| other | 0.9000 | ") and "(" not in lines[4]


def test_parts_of_a_step_add_up_by_hand() -> None:
    found = {"of": "step", "ms": {"a": {"x": 1.0, "y": 3.0}, "b": {"x": 2.0, "y": 6.0}}}
    assert result_tables.profile_table(found).splitlines()[-2:] == [
        "| together | 4.00 | 8.00 |",
        "| times as long as the first | 1.00 | 2.00 |",
    ]


def test_every_stop_of_the_ablations_is_kept(
    dense: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path))
    with pytest.raises(UserError, match="Run `bash tools/ablations.sh`"):
        results.collect_ablations()
    place = tmp_path / "docs-library" / "ablations"
    for name in ("dense", "gradual-seed42"):
        shutil.copytree(dense.folder, place / name)
    found = results.collect_ablations()["ablations"]
    assert list(found) == ["dense", "gradual-seed42"]
    assert found["dense"]["metrics"] == dense.metrics
