"""Make named stops of the tutorial's path for a task, without notebooks.

This is how the results on real data sets are made:
`TUTORIAL_TIER=full TUTORIAL_DATA_DIR=... python -m helpers path --task_name sst2`.
"""

from dataclasses import dataclass, field

from helpers.commands import parse, print_json
from helpers.commands.arguments import JsonArgument, flag
from helpers.errors import UserError


@dataclass
class PathArguments:
    """Which stops of which task."""

    task_name: str = flag("docs-library", "'docs-library' (embedded), 'sst2', or a hub data set")
    stops: list[str] = field(default_factory=list, metadata={"help": "stops; all if none is named"})
    export: bool = flag(True, "export and prove each stop")
    benchmark: bool = flag(True, "time the stops on the engines, if all are made")


def main(argv: list[str]) -> int:
    """Make the stops at the size of `TUTORIAL_TIER`; what is there already is not made again."""
    from helpers import path
    from helpers.export_proof import passed
    from helpers.tasks import load_task

    wanted, output = parse("path", (PathArguments, JsonArgument), argv)
    names = wanted.stops or list(path.STEPS)
    if unknown := [name for name in names if name not in path.STEPS]:
        raise UserError(f"No stop {unknown[0]!r}. Expected some of {', '.join(path.STEPS)}.")
    task = load_task(wanted.task_name)
    report = {}
    for name in names:
        made = path.checkpoint(name, task)
        report[name] = made.metrics
        print(f"{name}: {made.metrics}, {made.run['minutes']} minutes")
        if wanted.export:
            checks = path.onnx_model(name, task).proof["checks"]
            print(f"{name}: exported, {passed(checks)}")
    # Timings of a few would replace those of all.
    if wanted.benchmark and wanted.export and not wanted.stops:
        path.benchmark(task, names)
    print_json(output.json, report)
    return 0
