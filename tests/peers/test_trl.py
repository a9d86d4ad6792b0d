"""The losses of SFT, DPO and a reward model on one folder and the same rows are TRL's, masks and gradients included.

`trl.json` holds what TRL gave, with its version; `make test-peers` makes it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trl_losses import RATE, SHAPE, STEPS, rows, score

import hookline
from shapes import build

STORED = json.loads(Path(__file__).with_name("trl.json").read_text())
PHASES: dict[str, dict[str, Any]] = {
    "sft": {"rollout": {"use": "dataset", "rows": 8}, "update": {"use": "sft"}},
    "dpo": {"rollout": {"use": "preferences", "rows": 8}, "update": {"use": "dpo", "beta": 0.1}},
    "rm": {
        "model": {"head": "reward"},
        "rollout": {"use": "preferences", "rows": 8},
        "update": {"use": "bradley-terry", "centre": 0.0},
    },
}


@pytest.mark.parametrize("method", PHASES)
def test_losses_are_trls(method: str, tmp_path: Path) -> None:
    model = build(SHAPE, tmp_path / "model")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()[method]))
    phase = PHASES[method]
    rate = {"lr": RATE, "weight_decay": 0.0, "betas": [0.9, 0.95], "grad_clip": 1.0}
    described = {
        "name": method,
        "threads": 1,
        "model": {"path": str(model)},
        "trackers": [],
        "phases": [
            {
                **phase,
                "name": method,
                "steps": STEPS,
                "rollout": {**phase["rollout"], "path": str(path)},
                "update": {**phase["update"], **rate},
            }
        ],
    }
    losses = []
    with hookline.testing.open_phase(described) as loop:
        if method == "rm":
            head = loop.phase.roles["policy"].heads["reward"].inner
            with torch.no_grad():
                head.weight.copy_(score(head.weight.shape[1]))
        for _ in range(STEPS):
            loop.step()
            loop.phase.scope.step += 1
            losses.append(loop.phase.metrics.collect()[0]["loss"])
    assert losses == pytest.approx(STORED["losses"][method], abs=1e-5), STORED["versions"]
