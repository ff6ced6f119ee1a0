"""Where a training step's time goes: parts that add up, each where it belongs."""

import time

import pytest

from helpers.step_profile import PARTS, Clock, Stage, timed_steps
from helpers.stops import Checkpoint
from helpers.tasks import Task

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def smoke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_TIER", "smoke")


def test_time_inside_another_part_counts_once() -> None:
    clock = Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.05))
    began = time.perf_counter()
    clock.timed("outer", lambda: [time.sleep(0.02), inner()])()
    whole = time.perf_counter() - began
    assert clock.seconds["inner"] >= 0.05
    assert clock.seconds["outer"] >= 0.02
    assert clock.seconds["inner"] + clock.seconds["outer"] <= whole


@pytest.mark.parametrize(
    ("stage", "busy", "idle"),
    [
        (Stage("minilm-6layers_prune80", skipped=0.2), "masks and schedule", "fake quantization"),
        (Stage("minilm-6layers_quant", epochs=4.0), "fake quantization", "teacher"),
        (Stage("minilm-6layers_prune80", taught=True), "teacher", "fake quantization"),
    ],
)
def test_each_part_is_where_it_belongs(
    stage: Stage, busy: str, idle: str, dense: Checkpoint, tiny_task: Task
) -> None:
    rows = timed_steps(tiny_task, stage, dense, steps=1)
    assert len(rows) == 1
    assert set(rows[0]) == set(PARTS)
    assert min(rows[0].values()) >= 0
    assert min(rows[0][part] for part in ("input", "forward", "backward", "optimizer")) > 0
    assert rows[0][busy] > 0
    assert rows[0][idle] == 0
