"""The losses and gradients of GRPO and its kin, RLOO and KTO on one folder, prompts, answers and rewards are TRL's.

`trl_policy.json` holds what TRL gave, with its versions; `make test-peers` makes it again. docs/parity.md says where definitions differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from policy_rows import ASKED, CASES, GROUP, LONGEST, NO_LOSS, PROMPTS, rated
from trl_losses import RATE
from trl_policy import SHAPE, WITHOUT

import hookline
from shapes import build

HERE = Path(__file__).parent
STORED = json.loads((HERE / "trl_policy.json").read_text())
RATES = {"lr": RATE, "weight_decay": 0.0, "betas": [0.9, 0.95], "grad_clip": 1.0}
FIGURES = ("loss", "grad_norm", "kl")


def phase_of(case: str, folder: Path, epochs: int) -> dict[str, Any]:
    reward, _, ours = CASES[case]
    rows = folder / "rows.jsonl"
    if case.startswith("kto"):
        # TRL pairs a prompt with the answer of the row before; we pair it with the answer of the row after
        rows.write_text("".join(json.dumps(row) + "\n" for row in reversed(rated())))
        rollout: dict[str, Any] = {"rollout": {"use": "in-order", "path": str(rows), "label": "label"}}
    else:
        rows.write_text("".join(json.dumps({"prompt": asked}) + "\n" for asked in ASKED))
        rollout = {
            "rollout": {
                "use": "generate", "prompts": str(rows), "rows": PROMPTS, "samples_per_prompt": GROUP, "max_new_tokens": LONGEST,
            },
            "engine": {"use": "given", "answers": str(HERE / "trl_policy.json")},
            "reward": f"{HERE / 'policy_rows.py'}:{reward}",
        }  # fmt: skip
    return {**rollout, **ours, "name": "phase", "steps": 4, "update": {**RATES, **ours["update"], "epochs": epochs}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SHAPE, tmp_path_factory.mktemp("model"), **WITHOUT)


def figures_of(case: str, model: Path, folder: Path, epochs: int, steps: int) -> list[dict[str, float]]:
    """What each step logs; a figure is the mean over the optimiser steps of its step."""
    described = {
        "name": "parity", "threads": 1, "model": {"path": str(model)}, "trackers": [], "phases": [phase_of(case, folder, epochs)],
    }  # fmt: skip
    found = []
    with hookline.testing.open_phase(described, plugins=[str(HERE / "given.py")]) as loop:
        for _ in range(steps):
            loop.step()
            loop.phase.scope.step += 1
            found.append(loop.phase.metrics.collect()[0])
    return found


def theirs(case: str, name: str, several: int) -> list[float]:
    """TRL's figures, each the mean of several optimiser steps."""
    values = STORED["cases"][case][name]
    return [sum(values[at : at + several]) / several for at in range(0, len(values), several)]


def compare(case: str, found: list[dict[str, float]], several: int) -> None:
    for name in FIGURES[case in NO_LOSS : 3 if "kto" in case else 2]:
        ours = [figures[name] for figures in found]
        assert ours == pytest.approx(theirs(case, name, several)[: len(ours)], rel=1e-5, abs=1e-5), (
            name,
            STORED["versions"],
        )


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_trls(case: str, model: Path, tmp_path: Path) -> None:
    several = 1 if case.startswith("kto") else CASES[case][1].get("num_iterations", 2)
    if several > 1:
        compare(case, figures_of(case, model, tmp_path, epochs=1, steps=1), 1)
    compare(case, figures_of(case, model, tmp_path, epochs=several, steps=4 // several), several)


def test_the_cases_tell_a_difference() -> None:
    """Rewards, clips and KL terms count: no two cases have the same figures, and clips do not end all learning."""
    alike = {"bnpo"}  # in one batch, dapo's
    seen = {
        (*(round(loss, 4) for loss in case["loss"]), round(case["grad_norm"][-1], 4))
        for case in STORED["cases"].values()
    }
    assert len(seen) == len(CASES) - len(alike)
    for name, case in STORED["cases"].items():
        assert min(case["grad_norm"]) > 1e-2, name
    assert max(STORED["cases"]["kto, weights"]["kl"]) > 1e-2
    assert min(STORED["cases"]["rloo, KL"]["kl"]) < -1e-2


def test_the_page_names_every_option_of_the_cases() -> None:
    page = (HERE.parents[1] / "docs/parity.md").read_text(encoding="utf-8")
    for _, theirs, ours in CASES.values():
        for option in (*theirs, *ours["update"]):
            assert option in ("num_iterations", "use") or option in page, option
