"""TensorBoard event files, read back with its own reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracker_runs import EVIL, Followed, commit

from hookline import Run


def events(run: Run) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run.directory / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return read.Reload()


def points(read: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read.Scalars(tag)]


def test_every_figure_of_every_row_is_a_point_once(whole: Run, resumed: tuple[Run, list[str]]) -> None:
    for run in (whole, resumed[0]):
        read = events(run)
        expected: dict[str, list[tuple[int, float]]] = {}
        for row in run.rows():
            for name, value in {**row["metrics"], **row["timings"]}.items():
                expected.setdefault(f"{row['phase']}/{name}", []).append((row["step"], value))
        assert set(read.Tags()["scalars"]) == set(expected)
        for tag, wanted in expected.items():
            found = points(read, tag)
            assert [step for step, _ in found] == [step for step, _ in wanted], tag
            assert all(abs(a - b) <= 1e-6 * max(1, abs(b)) for (_, a), (_, b) in zip(found, wanted)), tag


def test_answers_are_text_and_nothing_else(opened: Callable[..., Followed]) -> None:
    run = opened("tensorboard")
    run.commit_samples(
        "rl", 0, "heldout", [{"sample": 0, "prompt": EVIL, "response": "| a | `b`\n# c", "terms": {"x": 1.0}}]
    )
    commit(run, "rl", 1)
    run.tell("run_finished", status="finished")
    (event,) = events(run).Tensors("rl/heldout/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert "<" not in text
    assert "`" not in text
    assert len(text.splitlines()) == 3
