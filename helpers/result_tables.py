"""Stored results as Markdown: the tables of the pages.

Every number comes out of a file of results/; nothing here is rounded twice or typed by hand.
"""

from operator import itemgetter
from typing import Any

from helpers import environment

# Of a matrix of many shapes a page shows these; its file and its picture have them all.
SHOWN_TOKENS, SHOWN_BATCHES = 128, (1, 16)


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
    rows = [row for row in found["benchmark"]["measurements"] if is_shown(row)]
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
            lines.append(f"{head} - | - | {reason(r['error'])} |")
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
            lines.append(f"{head} - | - | - | - | - | {reason(r['error'])} |")
            continue
        changed = "-" if r["labels_changed"] is None else r["labels_changed"]
        lines.append(
            f"{head} {r['mean_ms']:.1f} | {r['p10_ms']:.1f} to {r['p90_ms']:.1f} | "
            f"{r['texts_per_second']:.0f} | {r['tokenize_share']:.1%} | {changed} | "
            f"{r['processes']}, {r['memory_mb']:.0f} |"
        )
    return "\n".join(lines)


def reason(error: str) -> str:
    """Return the beginning of an error; what stands between columns would break the table."""
    return error.splitlines()[0].partition(" | ")[0][:80]


def is_shown(row: dict[str, Any]) -> bool:
    """Tell whether a measured row has one of the shapes that a page shows."""
    return row["sequence_length"] == SHOWN_TOKENS and row["batch_size"] in SHOWN_BATCHES


def roof_table(found: dict[str, Any]) -> str:
    """Return each model on its fastest engine beside the least time for it, as Markdown."""
    peaks, fastest = found["roofline"]["peaks"], {}
    for row in sorted(filter(is_shown, found["roofline"]["rows"]), key=itemgetter("median_ms")):
        fastest.setdefault((row["batch_size"], row["model"]), row)
    lines = [
        f"The CPU at its best: {peaks['fp32']:.0f} (fp32) and {peaks['int8']:.0f} (int8) billion "
        f"operations a second in large dense products, memory {peaks['memory']:.0f} GB/s.",
        "",
        "| model | engine | batch | billion operations | without zeros | median ms | "
        "least ms | all, share of the roof | needed, share of the roof |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | {r['engine']} | {r['batch_size']} | {r['operations']:.1f} | "
        f"{r['needed']:.1f} | {r['median_ms']:.1f} | {r['least_ms']:.1f} | {r['of_all']:.2f} | "
        f"{r['of_needed']:.2f} |"
        for _, r in sorted(fastest.items())
    ]
    return "\n".join(lines)


def profile_table(found: dict[str, Any]) -> str:
    """Return milliseconds a call or training step spends in every part, as Markdown.

    Of training steps the last row says how many times as long as the first one each takes.
    """
    columns = found["ms"]
    parts = list(next(iter(columns.values())))
    of = found.get("of", "call")
    lines = [f"| ms a {of} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for part in parts:
        values = " | ".join(f"{column[part]:.2f}" for column in columns.values())
        lines.append(f"| {part} | {values} |")
    sums = [sum(column.values()) for column in columns.values()]
    lines.append(f"| together | {' | '.join(f'{total:.2f}' for total in sums)} |")
    if of == "step":
        times = " | ".join(f"{total / sums[0]:.2f}" for total in sums)
        lines.append(f"| times as long as the first | {times} |")
    return "\n".join(lines)


def forms_table(found: dict[str, Any]) -> str:
    """Return what each form of a graph is worth on DeepSparse, as Markdown.

    A cell has the median milliseconds and how many times as fast the form is as SparseML's.
    """
    models = found["forms"]
    columns = [
        (model, batch)
        for model, forms in models.items()
        for batch in next(iter(forms.values()))["ms"]
    ]
    heads = [f"{model}, batch {batch}: ms (times as fast)" for model, batch in columns]
    lines = [f"| form | accuracy | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for form, about in models["minilm"].items():
        cells = [form_cell(models[model], form, batch) for model, batch in columns]
        kind = found["numbers"].get(form)
        name = f"{form} ({kind})" if kind else form
        lines.append(f"| {name} | {about['accuracy']:.4f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def form_cell(forms: dict[str, Any], form: str, batch: str) -> str:
    """Return the median milliseconds of a form, and its speed against the first one's."""
    ms = forms[form]["ms"][batch]
    if "error" in ms:
        return reason(ms["error"]).partition(":")[0]
    first = next(iter(forms.values()))["ms"][batch]["median_ms"]
    return f"{ms['median_ms']:.2f} ({first / ms['median_ms']:.2f})"


def training_table(found: dict[str, Any]) -> str:
    """Return milliseconds a training step with each setting, as Markdown."""
    first = next(iter(found["ms_a_step"].values()))["median"]
    metric = found.get("metric", "accuracy")
    lines = [
        f"| setting | median ms a step | least to most | times as fast | {metric} | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name, ms in found["ms_a_step"].items():
        score = found.get(metric, {}).get(name)
        lines.append(
            f"| {name} | {ms['median']} | {ms['least']} to {ms['most']} | "
            f"{first / ms['median']:.1f} | {'-' if score is None else f'{score:.4f}'} | "
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


def first_plot_line(found: dict[str, Any]) -> str:
    """Return in words how long a newcomer waits for the first plot."""
    waits = [
        f"{times['together'] / 60:.1f} minutes ({name})"
        for name, times in found["seconds_to_first_plot"].items()
    ]
    return f"From `git clone` to the first plot: {', '.join(waits)}, set-up included."


def machine_line(found: dict[str, Any]) -> str:
    """Return where and with what the figures were made, in one line."""
    cpu, versions = found["machine"], found["versions"]
    names = ("torch", "transformers", "sparseml", "deepsparse", "onnxruntime")
    packages = ", ".join(f"{name} {versions[name]}" for name in names)
    extras = [w for w, k in (("VNNI", "vnni"), ("bf16", "bf16"), ("AMX", "amx")) if cpu[k]]
    cores = environment.in_cores(cpu["cores"])
    gpu = f"{cpu['gpu']} beside " if "gpu" in cpu else ""
    return (
        f"{gpu}{cpu['cpu']}, {cores} ({', '.join(extras) or 'no VNNI'}); "
        f"Python {found['python']}, {packages}. Command: `{found['command']}`."
    )
