"""PPO's losses and their gradients for given log-probs and values are those of verl's own functions (`verl.json`; `verl_losses.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hookline
from hookline import Advantaged, Batch, Loss, MicroBatch, Stats
from hookline_plugins.algorithms.policy_gradient import PolicyGradient

STORED = json.loads(Path(__file__).with_name("verl.json").read_text())
GIVEN = {name: torch.tensor(rows) for name, rows in STORED["inputs"].items()}
MASK = GIVEN["response_mask"] != 0


def given_batch() -> Advantaged:
    """The stored rows, with arbitrary tokens."""
    B, T = MASK.shape
    return Advantaged(
        prompt_ids_BP=torch.ones(B, 1, dtype=torch.long),
        prompt_length_B=torch.ones(B, dtype=torch.long),
        token_ids_BT=torch.ones(B, T, dtype=torch.long),
        length_B=(MASK * torch.arange(1, T + 1)).amax(1),
        mask_BT=MASK,
        group_B=torch.arange(B),
        sample_B=torch.arange(B),
        records=({},) * B,
        decode=str,
        finish_reason=("stop",) * B,
        source=("policy",) * B,
        reward_BT=torch.zeros(B, T),
        terms={},
        advantage_BT=torch.where(MASK, GIVEN["advantages"], 0.0),
    ).with_extra(old_logprobs_BT=GIVEN["old_log_prob"], value_BT=GIVEN["values"], return_BT=GIVEN["returns"])


def update_of(setting: dict[str, Any], folder: Path) -> PolicyGradient:
    """The update of a phase: PPO, or GRPO where every answer has the same weight."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"say {word}"}) + "\n" for word in ("red", "green", "blue")))
    update: dict[str, Any] = {"use": "grpo", "clip_range": setting["low"], "clip_high": setting["high"]}
    if setting["over"] == "token-mean":
        update |= {"use": "ppo", "value_clip": setting["value"], "value_weight": 1.0}
    described = {
        "name": "verl", "threads": 1, "trackers": [], "tokenizer": {"train": "words", "on": str(rows), "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 16},
        "phases": [{
            "name": "rl", "steps": 1, "reward": "length", "update": update,
            "rollout": {"use": "generate", "prompts": str(rows), "rows": 2, "samples_per_prompt": 2, "max_new_tokens": 4},
        }],
    }  # fmt: skip
    with hookline.testing.open_phase(described) as loop:
        component = loop.planned.update.component
    assert isinstance(component, PolicyGradient)
    return component


@pytest.mark.parametrize("setting", STORED["settings"], ids=lambda setting: f"{setting['over']}-{setting['high']}")
def test_losses_and_gradients_are_verls(setting: dict[str, Any], tmp_path: Path) -> None:
    logprobs_BT, value_BT = GIVEN["log_prob"].clone().requires_grad_(), GIVEN["vpreds"].clone().requires_grad_()

    def read(model: str, batch: Batch, want: Any, support: Any) -> Stats:
        return Stats(
            {"value": value_BT}
            if model == "critic"
            else {"logprobs": logprobs_BT, "entropy": torch.zeros_like(logprobs_BT)}
        )

    counts = {"tokens": float(MASK.sum()), "rows": float(len(MASK))}
    mb: MicroBatch[Advantaged] = MicroBatch(given_batch(), read, counts.__getitem__)
    loss = update_of(setting, tmp_path).loss(mb)
    assert isinstance(loss, Loss)
    loss.value.backward()  # type: ignore[no-untyped-call]
    own = ("policy_loss", "value_loss") if setting["over"] == "token-mean" else ("policy_loss",)
    assert {name: mb._logged[name] for name in own} == pytest.approx({name: setting[name] for name in own}, abs=1e-6)
    torch.testing.assert_close(logprobs_BT.grad, torch.tensor(setting["d_log_prob"]), rtol=1e-5, atol=1e-7)
    if "value_loss" in own:
        torch.testing.assert_close(value_BT.grad, torch.tensor(setting["d_vpreds"]), rtol=1e-5, atol=1e-7)
