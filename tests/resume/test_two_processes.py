"""One run made by two processes: equal to that of one, and, when one of them is killed anywhere, continued bit for bit."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from test_resume import experiment, outcome

import ranks
from warm import Warm

PROGRAM = Path(__file__).with_name("killed_run.py")
POINTS = ("rollout", "epoch", "step", "row", "evaluation", "collect", "save", "sync", "rename", "phase", "cut")
Kill = tuple[str, int, str]


class Pair:
    """Runs of the miniature with two processes, and what an uninterrupted one gives."""

    def __init__(self, warm: Warm, folder: Path) -> None:
        self.warm, self.folder, self.tries = warm, folder, 0
        self.spec = experiment(folder)
        ended = self.run(folder / "whole")
        assert [code for code, _, _ in ended] == [0, 0], ended
        self.said = ended
        self.counts = [
            json.loads((folder / name).read_text()) for name in ("whole.counts", "whole.counts-1")
        ]  # calls of each point, by rank
        self.expected = outcome(folder / "whole")

    def run(self, out: Path, kill: Kill | None = None, rank: int = 0, size: int = 2) -> list[tuple[int, str, str]]:
        """Start every rank; the given one kills itself there. Returns (exit code, output, errors) by rank."""
        requests = [
            {"experiment": self.spec, "out": str(out), "kill": kill if n == rank else None} for n in range(size)
        ]
        if size == 1:
            done = self.warm.run(PROGRAM, input=json.dumps(requests[0]))
            return [(done.returncode, done.stdout, done.stderr)]
        started = ranks.start(self.warm, [[PROGRAM]] * size)
        return ranks.finished(started, [json.dumps(request) for request in requests])

    def kill_and_resume(self, kill: Kill, rank: int) -> None:
        self.tries += 1
        out = self.folder / f"{self.tries}-{kill[0]}{kill[1]}{kill[2]}-{rank}"
        codes = [code for code, _, _ in self.run(out, kill, rank)]
        assert codes[rank] == -signal.SIGKILL, f"the kill at {kill} never fired: {codes}"
        assert codes[1 - rank] not in (0, -signal.SIGKILL), "the other rank ends too, and says that it failed"
        again = self.run(out)
        assert [code for code, _, _ in again] == [0, 0], again
        assert outcome(out) == self.expected, (kill, rank)

    def at(self, seed: int) -> tuple[Kill, int]:
        """A random point, and the rank that is killed there."""
        draw = random.Random(seed)
        rank = draw.randrange(2)
        point = draw.choice([point for point in POINTS if self.counts[rank].get(point)])
        return (point, draw.randrange(self.counts[rank][point]) + 1, draw.choice(["before", "after"])), rank


@pytest.fixture(scope="module")
def pair(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(warm, tmp_path_factory.mktemp("pair"))


def near(here: Any, there: Any) -> float:
    """The largest relative difference of the figures of two runs; infinite if they do not have the same ones."""
    if [(row["phase"], row["step"], set(row["metrics"])) for row in here] != [
        (row["phase"], row["step"], set(row["metrics"])) for row in there
    ]:
        return float("inf")
    return max(
        abs(a - b) / max(1.0, abs(a))
        for x, y in zip(here, there)
        for a, b in zip(x["metrics"].values(), (y["metrics"][name] for name in x["metrics"]))
        if a == a and a is not None
    )


def test_two_processes_give_what_one_gives(pair: Pair) -> None:
    alone = pair.folder / "alone"
    [(code, _, errors)] = pair.run(alone, size=1)
    assert code == 0, errors
    one = outcome(alone)
    assert near(one["rows"], pair.expected["rows"]) < 1e-3
    assert one["comparisons"] == pair.expected["comparisons"]
    told = [[sample["response"] for sample in entry["samples"]] for entry in one["evaluations"]]
    assert told == [[sample["response"] for sample in entry["samples"]] for entry in pair.expected["evaluations"]]
    assert not (pair.folder / "whole/journal.jsonl").exists() or not list(pair.folder.glob("whole/journal-1*"))
    (_, out, _), (_, silent, errors) = pair.said
    assert out.count("hookline ") == 1
    assert not silent, "rank 0 prints"
    assert not errors


@pytest.mark.parametrize(("kill", "rank"), [(("epoch", 20, "before"), 1), (("sync", 60, "before"), 0)])
def test_a_killed_rank_changes_nothing(pair: Pair, kill: Kill, rank: int) -> None:
    pair.kill_and_resume(kill, rank)


@pytest.mark.slow(200)
def test_random_kills_change_nothing(pair: Pair) -> None:
    for seed in range(10):
        pair.kill_and_resume(*pair.at(seed))


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_from_the_save(pair: Pair, before: int, after: int) -> None:
    out = pair.folder / f"{before}to{after}"
    killed = pair.run(out, ("step", 16, "before"), 0, before)
    assert killed[0][0] == -signal.SIGKILL
    ended = pair.run(out, size=after)
    assert [code for code, _, _ in ended] == [0] * after, ended
    assert f"processes: {before} then, {after} now" in ended[0][2]
    found = outcome(out)
    assert near(found["rows"], pair.expected["rows"]) < 1e-3
    assert found["comparisons"] == pair.expected["comparisons"]
    saved = json.loads((out / "run.json").read_text())["resumed_with"]
    assert "processes" in saved


@pytest.mark.parametrize("asked", [0, 1])
def test_one_rank_that_is_asked_to_stop_saves_on_all(pair: Pair, asked: int) -> None:
    out = pair.folder / f"stopped{asked}"
    request = json.dumps({"experiment": pair.spec, "out": str(out), "kill": None})
    started = ranks.start(pair.warm, [[PROGRAM]] * 2)
    ranks.give(started, [request] * 2)
    rows, until = out / "metrics.jsonl", time.monotonic() + 60
    while not rows.exists() and time.monotonic() < until:
        time.sleep(0.02)
    started[asked].terminate()
    said = ranks.finished(started)
    assert "Stopped: stopped after" in said[0][2], said
    assert list(out.glob("checkpoints/*/manifest.json")), "it saved"
    assert [code for code, _, _ in pair.run(out)] == [0, 0]
    assert outcome(out) == pair.expected
