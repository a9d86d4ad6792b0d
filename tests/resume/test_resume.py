"""A run that is killed anywhere and started again ends with the same weights, rows, evaluations and comparisons, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hookline import Run
from hookline.loop.api import open_finished
from warm import Warm

WORDS = "open close read write file list value name return error string number path time data key".split()


def experiment(folder: Path) -> dict[str, Any]:
    """Every kind of phase, in miniature: about two seconds on one thread."""
    texts = folder / "texts.jsonl"
    rows = [
        {"text": f"To {a} the {b}, {c} a {d}."}
        for a, b, c, d in zip(WORDS * 4, WORDS[3:] * 5, WORDS[7:] * 7, WORDS[1:] * 4)
    ]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = folder / "prompts.jsonl"
    prompts.write_text(
        "".join(
            json.dumps({"prompt": w, "completion": f"To {w} a {v}.", "keywords": [w]}) + "\n"
            for w, v in zip(WORDS, WORDS[5:] + WORDS)
        )
    )
    rl = {
        "model": {"from": "sft"},
        "rollout": {
            "use": "generate",
            "prompts": str(prompts),
            "rows": 4,
            "samples_per_prompt": 2,
            "max_new_tokens": 6,
        },
        "reward": [{"use": "reward-model", "from": "reward-model"}, {"use": "length", "weight": -0.05}],
        "wrap": [{"use": "kl-penalty", "target": 0.05, "horizon": 50}, "whiten"],
        "advantage": "gae",
        "evaluate": [
            {"every": 2, "rows": 4, "prompts": str(prompts), "reward": ["keyword-coverage", {"use": "kl", "to": "sft"}]}
        ],
        "save": {"every": 2, "best": "eval/keyword-coverage"},
        "steps": 5,
    }
    return {
        "name": "miniature",
        "seed": 3,
        "threads": 1,
        "tokenizer": {"train": "bpe", "on": str(texts), "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 32, "context": 48},
        "trackers": [],
        "phases": [
            {
                "name": "pretrain",
                "rollout": {"use": "text", "path": str(texts), "rows": 4, "length": 16},
                "update": {
                    "use": "causal-lm",
                    "optimizer": "muon",
                    "lr": 1e-3,
                    "warmup": 2,
                    "schedule": "cosine",
                    "epochs": 2,
                    "minibatches": 2,
                },
                "steps": 5,
                "save": {"every": 2},
            },
            {
                "name": "sft",
                "rollout": {"use": "dataset", "path": str(prompts), "rows": 4},
                "update": "sft",
                "steps": 3,
                "save": {"every": 1},
            },
            {
                "name": "comparisons",
                "rollout": rl["rollout"],
                "reward": "length",
                "feedback": "simulated-annotator",
                "steps": 4,
                "save": {"every": 2},
            },
            {
                "name": "reward-model",
                "model": {"from": "sft", "head": "reward"},
                "rollout": {"use": "preferences", "from": "comparisons", "rows": 4},
                "update": "bradley-terry",
                "steps": 3,
                "save": {"every": 2},
            },
            {"name": "rl", "update": {"use": "ppo", "lr": 1e-3, "epochs": 2, "minibatches": 2}, **rl},
            {
                "name": "rl-shared",
                "update": {"use": "ppo", "lr": 1e-3, "critic": "shared", "epochs": 2},
                **rl,
                "wrap": [
                    {"use": "replay", "capacity": 5, "groups": 2, "choose": "advantage"},
                    *rl["wrap"],
                    "importance-weights",
                ],
                "steps": 3,
            },
        ],
    }


slow = pytest.mark.slow


class Runs:
    """Runs of one experiment, each in a warm process, and what an uninterrupted one gives."""

    def __init__(self, warm: Warm, folder: Path, spec: dict[str, Any]) -> None:
        self.warm, self.folder, self.spec, self.tries = warm, folder, spec, 0
        whole = self.run(folder / "whole")
        assert whole.returncode == 0, whole.stderr
        self.counts: dict[str, int] = json.loads((folder / "whole.counts").read_text())
        self.expected = outcome(folder / "whole")

    def run(self, out: Path, kill: tuple[str, int, str] | None = None) -> subprocess.CompletedProcess[str]:
        request = {"experiment": self.spec, "out": str(out), "kill": kill}
        return self.warm.run(Path(__file__).with_name("killed_run.py"), input=json.dumps(request))

    def kill_and_resume(self, *kills: tuple[str, int, str]) -> None:
        self.tries += 1
        out = self.folder / "-".join([f"{self.tries}", *(f"{point}{n}{when}" for point, n, when in kills)])
        for kill in kills:
            died = self.run(out, kill)
            assert died.returncode == -signal.SIGKILL, f"the kill at {kill} never fired: {died}"
        again = self.run(out)
        assert again.returncode == 0, again.stderr
        assert outcome(out) == self.expected


def outcome(out: Path) -> dict[str, Any]:
    """Everything a run promises to repeat; wall times are outside every promise."""

    def lines(name: str) -> list[Any]:
        return [json.loads(line) for line in (out / name).read_text().splitlines()]

    return {
        "rows": [{key: value for key, value in row.items() if key != "timings"} for row in lines("metrics.jsonl")],
        "evaluations": lines("evaluations.jsonl"),
        "completions": lines("completions.jsonl"),
        "comparisons": {p.parent.name: p.read_text() for p in sorted(out.glob("phases/*/data.jsonl"))},
        "weights": {
            p.parent.name: json.loads(p.read_text())["weights"] for p in sorted(out.glob("phases/*/manifest.json"))
        },
        "roles": {str(p.relative_to(out)): hash_of(p) for p in sorted(out.glob("phases/*/roles/*/role.json"))},
        "best": {str(p.relative_to(out)): hash_of(p) for p in sorted(out.glob("best/*/model/role.json"))},
    }


def hash_of(role: Path) -> str:
    return str(json.loads(role.read_text())["hash"])


def rounds(folder: Path) -> dict[str, Any]:
    """Three rounds of comparing, judging and learning, in miniature."""
    spec = experiment(folder)
    pretrain, sft, comparisons, judge, rl, _ = spec["phases"]
    again = [
        {**comparisons, "model": {"from": "rl", "first": "sft"}, "steps": 2, "save": {"every": 1}},
        {**judge, "steps": 2, "save": {"every": 1}},
        {**rl, "model": {"from": "rl", "first": "sft"}, "steps": 2, "save": {"every": 1}},
    ]
    return {**spec, "phases": [{**pretrain, "steps": 2}, sft, {"repeat": 3, "phases": again}]}


@pytest.fixture(scope="module")
def runs(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("resume")
    return Runs(warm, folder, experiment(folder))


@pytest.fixture(scope="module")
def in_rounds(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("rounds")
    return Runs(warm, folder, rounds(folder))


def test_the_miniature_changes_weights_in_every_phase_that_trains(runs: Runs) -> None:
    weights = runs.expected["weights"]
    assert len(set(weights.values())) == 5, "pretrain, sft (= comparisons), reward-model, rl, rl-shared"
    assert weights["sft"] == weights["comparisons"]


@pytest.mark.parametrize(
    ("point", "share", "when"),
    [
        pytest.param("cut", 0.0, "before", marks=slow),  # before the first phase began
        pytest.param("phase", 0.0, "before", marks=slow),  # phase boundaries
        ("phase", 0.5, "after"),
        pytest.param("rollout", 0.3, "before", marks=slow),  # while comparisons are sampled
        ("rollout", 0.8, "before"),  # in mid-rollout of PPO
        pytest.param("collect", 0.7, "after", marks=slow),  # comparisons written, step not committed
        ("epoch", 0.2, "after"),  # between the epochs of one step
        pytest.param("epoch", 0.85, "before", marks=slow),
        ("save", 0.5, "before"),  # in mid-save
        pytest.param("sync", 0.7, "before", marks=slow),
        pytest.param("rename", 0.4, "before", marks=slow),
        pytest.param("rename", 0.9, "after", marks=slow),
        ("evaluation", 0.6, "before"),
        ("row", 0.95, "after"),
    ],
)
def test_a_kill_changes_nothing(runs: Runs, point: str, share: float, when: str) -> None:
    runs.kill_and_resume((point, 1 + int(share * (runs.counts[point] - 1)), when))


def test_two_kills_in_one_run_change_nothing(runs: Runs) -> None:
    runs.kill_and_resume(("epoch", 14, "before"), ("save", 9, "after"))


@pytest.mark.slow(400)
def test_a_kill_at_every_step_and_every_save_changes_nothing(runs: Runs) -> None:
    """Every step of every phase, before and after its row, and every write of every save."""
    for point, when in (
        ("step", "before"),
        ("step", "after"),
        ("row", "after"),
        ("rename", "before"),
        ("save", "after"),
    ):
        for n in range(1, runs.counts[point] + 1):
            runs.kill_and_resume((point, n, when))


def test_every_round_goes_on_from_the_last_and_learns_from_all_comparisons(in_rounds: Runs) -> None:
    weights, data = in_rounds.expected["weights"], in_rounds.expected["comparisons"]
    assert list(weights)[:3] == ["comparisons@1", "comparisons@2", "comparisons@3"]
    assert [weights[f"comparisons@{k}"] for k in (1, 2, 3)] == [weights[n] for n in ("sft", "rl@1", "rl@2")]
    assert len({weights[f"rl@{k}"] for k in (1, 2, 3)} | {weights[f"reward-model@{k}"] for k in (1, 2, 3)}) == 6
    assert len(set(data.values())) == 3
    rows = in_rounds.expected["rows"]
    assert [row["row"] for row in rows] == list(range(len(rows))), "rows go on counting"
    read = json.loads((in_rounds.folder / "whole" / "run.json").read_text())["data"]
    counts = [len(data[f"comparisons@{k}"].splitlines()) for k in (1, 2, 3)]
    assert [read[f"phase:comparisons@{k}"]["rows"] for k in (1, 2, 3)] == counts
    with open_finished(Run.read(in_rounds.folder / "whole"), "reward-model@3") as loop:
        assert len(loop.ctx.collected("comparisons")) == sum(counts)
        assert len(loop.ctx.collected("comparisons@2")) == counts[1]


@pytest.mark.parametrize(
    ("point", "share", "when"),
    [
        pytest.param("step", 0.5, "before", marks=slow),
        ("rollout", 0.6, "before"),
        pytest.param("epoch", 0.9, "after", marks=slow),
        ("phase", 0.45, "before"),
    ],
)
def test_a_kill_in_a_round_changes_nothing(in_rounds: Runs, point: str, share: float, when: str) -> None:
    in_rounds.kill_and_resume((point, 1 + int(share * (in_rounds.counts[point] - 1)), when))


@pytest.mark.slow(300)
def test_a_kill_at_every_step_of_every_round_changes_nothing(in_rounds: Runs) -> None:
    for point, when in (("step", "before"), ("row", "after"), ("phase", "before"), ("phase", "after")):
        for n in range(1, in_rounds.counts[point] + 1):
            in_rounds.kill_and_resume((point, n, when))
