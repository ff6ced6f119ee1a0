"""Measured results: collected from the stops into results/, and from there into the README.

No figure is typed by hand: `collect` reads what runs wrote, `render` writes the tables between
the README's markers, and a test holds the README to results/.
"""

import json
import re
from pathlib import Path
from typing import Any

from helpers import environment, tiers
from helpers.errors import UserError
from helpers.exercises import zipped_size
from helpers.stops import Checkpoint, OnnxModel

FOLDER = environment.REPOSITORY / "results"
NOTEBOOKS = environment.REPOSITORY / "notebooks"
EMBEDDED = "docs-library"
README = environment.REPOSITORY / "README.md"
UNMEASURED = "Not measured yet."
KEPT = ("metrics", "minutes", "steps", "rows", "recipe", "peak_memory_gb", "request", "finished")


def runs_of(task_name: str) -> Path:
    """Return the folder of a task's stops at the current size."""
    return environment.runs_folder() / task_name / tiers.current().name


def collect(task_name: str) -> dict[str, Any]:
    """Gather the stops, proofs and timings of a task at the current size.

    Raises:
        UserError: if nothing of it was run yet.
    """
    folder = runs_of(task_name)
    stops = {f.parent.name: Checkpoint.load(f.parent) for f in sorted(folder.glob("*/run.json"))}
    if not stops:
        raise UserError(f"Nothing was run for {task_name} at {tiers.current().name} size yet.")
    proofs = {f.parent.name: OnnxModel.load(f.parent) for f in folder.glob("*/proof.json")}
    timings = folder / "benchmark.json"
    return {
        "task": task_name,
        "tier": tiers.current().name,
        "stops": {name: {key: stop.run[key] for key in KEPT} for name, stop in stops.items()},
        "proofs": {name: model.proof["checks"] for name, model in sorted(proofs.items())},
        "sizes": {name: size(model.file) for name, model in sorted(proofs.items())},
        "benchmark": json.loads(timings.read_text()) if timings.is_file() else None,
        "minutes": notebook_minutes(tiers.current().name) if task_name == EMBEDDED else {},
        **environment.describe(),
    }


def size(file: Path) -> dict[str, float]:
    """Return a file's size, and its size zipped, in MB."""
    return {
        "file_mb": round(file.stat().st_size / 1e6, 1),
        "zipped_mb": round(zipped_size(file) / 1e6, 1),
    }


def notebook_minutes(tier: str) -> dict[str, float]:
    """Return notebook to minutes, as their headers say, for those stored at this size."""
    pattern = re.compile(rf"\*\*Minutes:\*\* ([\d.]+), .*\({tier} size\)")
    found = {}
    for file in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        header = "".join(json.loads(file.read_text())["cells"][0]["source"])
        if match := pattern.search(header):
            found[file.stem] = float(match[1])
    return found


def store(found: dict[str, Any], command: str) -> Path:
    """Write collected results to results/, with the command that made them."""
    file = FOLDER / f"{found['task'].replace('/', '--')}_{found['tier']}.json"
    file.write_text(json.dumps({"command": command, **found}, indent=1) + "\n")
    return file


def accuracy_table(found: dict[str, Any]) -> str:
    """Return the task's metric, share of dense, and minutes of every stop, as Markdown."""
    metric, dense = next(iter(found["stops"]["dense"]["metrics"].items()))
    lines = [
        f"| model | {metric} | of dense | training minutes | ONNX file, MB | zipped, MB |",
        "|---|---|---|---|---|---|",
    ]
    order = sorted(found["stops"].items(), key=lambda item: item[1]["finished"])
    for name, stop in order:
        value = stop["metrics"][metric]
        sizes = found["sizes"].get(f"{name}-onnx", {"file_mb": "-", "zipped_mb": "-"})
        lines.append(
            f"| {name} | {value:.4f} | {value / dense:.3f} | {stop['minutes']:.1f} | "
            f"{sizes['file_mb']} | {sizes['zipped_mb']} |"
        )
    return "\n".join(lines)


def speed_table(found: dict[str, Any]) -> str:
    """Return median latency of every model and engine, as Markdown; "" without timings."""
    if not found.get("benchmark"):
        return ""
    rows = found["benchmark"]["measurements"]
    base = {
        r["batch_size"]: r["median_ms"]
        for r in rows
        if (r["model"], r["engine"], r["error"]) == ("dense", "onnxruntime", None)
    }
    lines = [
        "| model | engine | batch | median ms | 10 % to 90 % | times as fast as dense, "
        "ONNX Runtime |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        head = f"| {r['model']} | {r['engine']} | {r['batch_size']} |"
        if r["error"]:
            lines.append(f"{head} - | - | {r['error'].splitlines()[0][:80]} |")
            continue
        against = base.get(r["batch_size"])
        times = f"{against / r['median_ms']:.1f}" if against else "-"
        lines.append(
            f"{head} {r['median_ms']:.1f} | {r['p10_ms']:.1f} to {r['p90_ms']:.1f} | {times} |"
        )
    return "\n".join(lines)


def texts_table(found: dict[str, Any]) -> str:
    """Return how long real texts are, and what they take on each engine, as Markdown."""
    lines = [
        found["verdict"].splitlines()[0],
        "",
        "| model | engine | padded to | mean ms a text | 10 % to 90 % | texts a second | "
        "making tokens | answers changed | processes, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in found["measurements"]:
        head = f"| {r['model']} | {r['engine']} | {', '.join(map(str, r['lengths']))} |"
        if r["error"]:
            lines.append(f"{head} - | - | - | - | - | {r['error'].splitlines()[0][:80]} |")
            continue
        changed = "-" if r["labels_changed"] is None else r["labels_changed"]
        lines.append(
            f"{head} {r['mean_ms']:.1f} | {r['p10_ms']:.1f} to {r['p90_ms']:.1f} | "
            f"{r['texts_per_second']:.0f} | {r['tokenize_share']:.1%} | {changed} | "
            f"{r['processes']}, {r['memory_mb']:.0f} |"
        )
    return "\n".join(lines)


def tasks_table(files: list[Path]) -> str:
    """Return one row for each stop of each task that the notebooks do not take, as Markdown."""
    lines = [
        "| data | rows | metric | model | value | of dense | training minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in (json.loads(file.read_text()) for file in files):
        metric, dense = next(iter(found["stops"]["dense"]["metrics"].items()))
        for name, stop in sorted(found["stops"].items(), key=lambda item: item[1]["finished"]):
            value, rows = stop["metrics"][metric], stop["rows"]
            lines.append(
                f"| {found['task']} | {rows['train']:,} / {rows['validation']:,} | {metric} | "
                f"{name} | {value:.4f} | {value / dense:.3f} | {stop['minutes']:.1f} |"
            )
    return "\n".join(lines)


def training_table(found: dict[str, Any]) -> str:
    """Return milliseconds a training step with each setting, as Markdown."""
    first = next(iter(found["ms_a_step"].values()))["median"]
    lines = [
        "| setting | median ms a step | least to most | times the first | accuracy | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name, ms in found["ms_a_step"].items():
        accuracy = found.get("accuracy", {}).get(name)
        lines.append(
            f"| {name} | {ms['median']} | {ms['least']} to {ms['most']} | "
            f"{first / ms['median']:.1f} | {'-' if accuracy is None else f'{accuracy:.4f}'} | "
            f"{found.get('minutes', {}).get(name, '-')} |"
        )
    return "\n".join(lines)


def idle_line(found: dict[str, Any]) -> str:
    """Return in words what a recipe that does nothing costs."""
    ratio = found["ratio"]
    return (
        f"With a recipe that does nothing a step takes {ratio['median']:.2f} times as long as with "
        f"Hugging Face's own Trainer and the same settings ({ratio['least']:.2f} to "
        f"{ratio['most']:.2f}; {found['rounds']} rounds of {found['steps']} steps, turn by turn)."
    )


def machine_line(found: dict[str, Any]) -> str:
    """Return where and with what the figures were made, in one line."""
    cpu, versions = found["machine"], found["versions"]
    names = ("torch", "transformers", "sparseml", "deepsparse", "onnxruntime")
    packages = ", ".join(f"{name} {versions[name]}" for name in names)
    extras = [w for w, k in (("VNNI", "vnni"), ("bf16", "bf16"), ("AMX", "amx")) if cpu[k]]
    cores = environment.in_cores(cpu["cores"])
    return (
        f"{cpu['cpu']}, {cores} ({', '.join(extras) or 'no VNNI'}); "
        f"Python {found['python']}, {packages}. Command: `{found['command']}`."
    )


def section(file: Path) -> str:
    """Return the README's section for one results file; one plain line while there is none.

    The section `tasks` is made of all files that have no section of their own.
    """
    if file.stem == "tasks":
        others = sorted(set(FOLDER.glob("*_full.json")) - {FOLDER / "sst2_full.json"})
        lines = [machine_line(json.loads(other.read_text())) for other in others]
        return "\n\n".join([tasks_table(others), *lines]) if others else UNMEASURED
    if not file.is_file():
        return UNMEASURED
    found = json.loads(file.read_text())
    if "ms_a_step" in found:
        return f"{training_table(found)}\n\n{machine_line(found)}"
    if "lengths" in found:
        return f"{texts_table(found)}\n\n{machine_line(found)}"
    if "measurements" in found:
        return f"{speed_table({'benchmark': found})}\n\n{machine_line(found)}"
    if "ms_idle_recipe" in found:
        return f"{idle_line(found)}\n\n{machine_line(found)}"
    parts = [accuracy_table(found), speed_table(found), machine_line(found)]
    return "\n\n".join(part for part in parts if part)


def rendered(text: str) -> str:
    """Return the README's text with every marked section made anew.

    A section stands between `<!-- results: NAME -->` and `<!-- end -->`, where NAME is a file of
    results/ without its ending.
    """
    pattern = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda m: f"{m[1]}{section(FOLDER / f'{m[2]}.json')}\n{m[3]}", text)


def write_readme() -> None:
    """Make the README's tables anew from results/."""
    README.write_text(rendered(README.read_text()))
