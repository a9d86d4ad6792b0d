"""The reward `judge` in a run with two processes: each asks about its own rows, and both write one file of replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ranks
from hookline import Run
from judging_server import by_length, serving
from warm import Warm

KILLED = Path(__file__).parents[1] / "resume" / "killed_run.py"


def test_each_row_is_asked_about_on_its_rank(tmp_path: Path, warm: Warm) -> None:
    words = ["red", "green", "blue", "white"]
    rows = [{"prompt": f"say {word}", "completion": f"{word} ."} for word in words]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(by_length) as service:
        phase = {
            "name": "rl", "steps": 2, "save": {"every": 1}, "advantage": "leave-one-out",
            "rollout": {"use": "generate", "prompts": "rows.jsonl", "rows": 4, "samples_per_prompt": 2, "max_new_tokens": 3},
            "reward": {"use": "judge", "url": service.url, "model": "m"}, "update": {"use": "reinforce", "lr": 1e-2},
        }  # fmt: skip
        experiment: dict[str, Any] = {
            "name": "judged", "seed": 1, "threads": 1, "folder": str(tmp_path), "trackers": [], "phases": [phase],
            "tokenizer": {"train": "words", "on": "rows.jsonl", "vocabulary": 300},
            "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 16},
        }  # fmt: skip
        made = {}
        for size in (1, 2):
            out = tmp_path / f"of{size}"
            request = json.dumps({"experiment": experiment, "out": str(out), "kill": None})
            ended = ranks.finished(ranks.start(warm, [[KILLED]] * size), [request] * size)
            assert [code for code, _, _ in ended] == [0] * size, ended
            made[size] = [row["metrics"] for row in Run.read(out).rows()]
            lines = [json.loads(line) for line in (out / "judged.jsonl").read_text().splitlines()]
            assert sum(line["requests"] for line in lines) == sum(row["judge/judge/requests"] for row in made[size])
            assert {line["judge"] for line in lines} == {"judge"}
        for one, two in zip(made[1], made[2]):
            assert two["reward/judge"] == pytest.approx(one["reward/judge"])
        asked = sum(row[f"judge/judge/{name}"] for row in made[2] for name in ("requests", "cached"))
        assert asked == 16
        assert (tmp_path / "of2/journal-1.jsonl").exists()
