"""Scores of stored runs as Markdown: one row a stop, a task or a way of pruning.

As in `result_tables`, every number comes out of a file of results/.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Any

# What tools/ablations.sh calls the ways, and what a reader does.
WAYS = {
    "dense": "not pruned",
    "gradual": "gradually, smallest weights first, with a teacher",
    "no_teacher": "gradually, without a teacher",
    "one_shot": "all at once, with a teacher",
    "block4": "gradually, four neighbours at a time, with a teacher",
    "obs": "by the Optimal BERT Surgeon in six steps, with a teacher",
    "int8_tensor": "gradually with a teacher, then int8 with one scale a matrix",
    "int8_channel": "gradually with a teacher, then int8 with a scale for each output",
}
# Columns of `kept_table`, with the names of the stops that count.
SPARSE_WAYS = {
    "pruned 80 %": ("prune80",),
    "pruned 80 %, int8": ("prune80_quant", "prune80_quant_distill"),
    "pruned 90 %": ("prune90", "prune90_obs"),
    "pruned 90 %, int8": ("prune90_quant", "prune90_quant_distill"),
    "transfer 80 %": ("transfer80",),
    "transfer 80 %, int8": ("transfer80_quant",),
    "transfer 90 %": ("transfer90",),
    "transfer 90 %, int8": ("transfer90_quant",),
}


def tasks_table(files: list[Path]) -> str:
    """Return one row for each stop of each task that the notebooks do not take, as Markdown."""
    tasks = [json.loads(file.read_text()) for file in files]
    return stops_table({found["task"]: found["stops"] for found in tasks})


def kept_table(runs: list[tuple[str, dict[str, Any]]]) -> str:
    """Return what is left of the dense score, one row a task and one column a way, as Markdown.

    Args:
        runs: task and its stops, by name, for each run; of several the best one is shown.
    """
    lines = [f"| data | {' | '.join(SPARSE_WAYS)} |", "|---" * (len(SPARSE_WAYS) + 1) + "|"]
    for task in dict.fromkeys(task for task, _ in runs):
        cells = [
            best_share([s for name, s in runs if name == task], way) for way in SPARSE_WAYS.values()
        ]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def best_share(runs: list[dict[str, Any]], names: tuple[str, ...]) -> str:
    """Return the best share of the dense score among ways of these names, or a dash.

    Of several seeds the mean counts, or the luckiest would be shown.
    """
    of_seeds = [shares(stops, name) for stops in runs for name in names]
    found = [mean(each) for each in of_seeds if each]
    return f"{max(found):.3f}" if found else "-"


def by_way(stops: dict[str, Any]) -> dict[str, list[Any]]:
    """Return way to its stops, one a seed: 'dense' to those of dense, dense-seed43 and so on."""
    found: dict[str, list[Any]] = {}
    for name, stop in stops.items():
        found.setdefault(name.partition("-seed")[0], []).append(stop)
    return found


def shares(stops: dict[str, Any], way: str) -> list[float]:
    """Return the share of the dense score for each seed.

    Its dense model is that of the same seed, or else the only one: tools/ablations.sh trains one.
    """
    found = []
    for name, stop in stops.items():
        first, mark, seed = name.partition("-seed")
        if first != way:
            continue
        metric = next(iter(stop["metrics"]))
        dense = stops.get(f"dense{mark}{seed}") or stops.get("dense")
        if dense:
            found.append(stop["metrics"][metric] / dense["metrics"][metric])
    return found


def transfer_table(found: dict[str, Any]) -> str:
    """Return one row for each upstream model and for each stop of each task, as Markdown."""
    return stops_table({"plain text": found["upstream"], **found["tasks"]})


def stops_table(tasks: dict[str, dict[str, Any]]) -> str:
    """Return one row for each way of each task, in the order they were trained in.

    Of several seeds it gives the mean, and the least and the most.
    """
    lines = [
        "| data | rows | metric | model | value | of dense | training minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, stops in tasks.items():
        for name, seeds in sorted(by_way(stops).items(), key=lambda way: way[1][0]["finished"]):
            metric, rows = next(iter(seeds[0]["metrics"])), seeds[0]["rows"]
            kept = shares(stops, name)
            share = f"{mean(kept):.3f}" if kept else "-"
            value = mean_and_spread([stop["metrics"][metric] for stop in seeds])
            minutes = mean(stop["minutes"] for stop in seeds)
            lines.append(
                f"| {task} | {rows['train']:,} / {rows['validation']:,} | {metric} | {name} | "
                f"{value} | {share} | {minutes:.1f} |"
            )
    return "\n".join(lines)


def mean_and_spread(scores: list[float]) -> str:
    """Return a score; of several the mean, their number, the least and the most."""
    if len(scores) == 1:
        return f"{scores[0]:.4f}"
    return f"{mean(scores):.4f} ({len(scores)} seeds, {min(scores):.4f} to {max(scores):.4f})"


def ablations_table(found: dict[str, Any]) -> str:
    """Return one row for each way of pruning, over its seeds, as Markdown.

    Without minutes: the runs are long, and are meant to share a machine with other work.
    """
    lines = [
        "| pruned to 90 % | seeds | accuracy, mean | least to most | of dense |",
        "|---|---|---|---|---|",
    ]
    stops = found["ablations"]
    dense, seeds = stops["dense"]["metrics"]["accuracy"], by_way(stops)
    for way, words in WAYS.items():
        scores = [stop["metrics"]["accuracy"] for stop in seeds.get(way, [])]
        if not scores:
            continue
        spread = f"{min(scores):.4f} to {max(scores):.4f}" if len(scores) > 1 else "-"
        average = mean(scores)
        lines.append(
            f"| {words} | {len(scores)} | {average:.4f} | {spread} | {average / dense:.3f} |"
        )
    return "\n".join(lines)
