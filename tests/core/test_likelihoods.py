"""Among which tokens a log-prob is taken, where top-k or top-p left some out: those that were kept, or the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from hookline import PluginError
from hookline.loop.loop import PhaseLoop

Lab = Callable[..., PhaseLoop]
CUT = {"top_k": 3}


def whole_of(loop: PhaseLoop, rollout: Any, role: str) -> torch.Tensor:
    """log softmax over the whole vocabulary, straight from the network."""
    net = loop.ctx.role_named(role).net
    found = torch.zeros(rollout.token_ids_BT.shape)
    for row in range(len(rollout)):
        prompt, answer = rollout.prompt_ids(row), rollout.response_ids(row)
        with torch.no_grad():
            logits = net(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        found[row, : len(answer)] = torch.log_softmax(logits, -1)[torch.arange(len(answer)), answer]
    return torch.where(rollout.mask_BT, found, 0.0)


def moved(loop: PhaseLoop) -> None:
    """Make the policy another model than the reference."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in loop.ctx.role_named("policy").trainable().values():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    loop.ctx.role_named("policy").version += 1


@pytest.mark.parametrize("cut", [CUT, {"top_p": 0.3}], ids=str)
def test_the_policy_s_default_is_what_was_kept_and_another_role_s_the_vocabulary(
    lab: Lab, sampled: dict[str, Any], cut: dict[str, Any]
) -> None:
    loop = lab(rollout={**sampled, **cut}, reward="length", wrap=["kl-penalty"], update={"use": "rloo"})
    moved(loop)
    rollout = loop.hooks.rollout(loop.ctx)
    assert rollout.behaviour is not None
    own, reference = (whole_of(loop, rollout, role) for role in ("policy", "reference"))
    ctx, near = loop.ctx, {"atol": 2e-5, "rtol": 0}
    torch.testing.assert_close(ctx.stats(rollout).logprobs_BT, rollout.behaviour.logprobs_BT, **near)
    torch.testing.assert_close(ctx.stats(rollout, support="whole").logprobs_BT, own, **near)
    torch.testing.assert_close(ctx.stats(rollout, support="kept").logprobs_BT, rollout.behaviour.logprobs_BT, **near)
    torch.testing.assert_close(ctx.stats(rollout, model="reference").logprobs_BT, reference, **near)
    kept = ctx.stats(rollout, model="reference", support="kept").logprobs_BT
    assert (kept - reference)[rollout.mask_BT].min() > 0.1


def test_the_price_of_a_kl_is_that_of_the_truncated_policy_to_the_whole_reference(
    lab: Lab, sampled: dict[str, Any]
) -> None:
    loop = lab(rollout={**sampled, **CUT}, reward="length", wrap=[{"use": "kl-penalty", "beta": 1.0}], update="rloo")
    rollout = loop.hooks.rollout(loop.ctx)
    assert rollout.behaviour is not None
    scored = loop.hooks.score(loop.ctx, rollout)
    expected = (rollout.behaviour.logprobs_BT - whole_of(loop, rollout, "reference")).sum(1)
    torch.testing.assert_close(-scored.terms["kl_penalty"], expected, atol=2e-4, rtol=0)
    assert expected.min() > 1, "what was cut off is paid for, though the weights are still the reference's"


@pytest.mark.parametrize(
    ("update", "figure"),
    [("dpo", "chosen_logprob"), ("simpo", "chosen_logprob"), ("orpo", "nll"), ("sft", "nll"), ("kto", "good_gain")],
)
def test_losses_that_are_likelihoods_are_of_the_vocabulary(
    lab: Lab, sampled: dict[str, Any], update: str, figure: str
) -> None:
    """On one and the same rows, it makes no difference to them that top-k left tokens out."""
    loop = lab(rollout={**sampled, **CUT}, reward="length", update={"use": update, "lr": 1e-9})
    if update == "kto":
        moved(loop)
    rollout = loop.hooks.rollout(loop.ctx)
    figures = []
    for batch in (rollout, replace(rollout, behaviour=None)):
        loop.hooks.update(loop.ctx, batch.scored(torch.arange(len(batch)).float() % 2))
        figures.append(loop.phase.metrics.collect()[0])
    assert figures[0][figure] == pytest.approx(figures[1][figure], abs=1e-4)
    assert figures[0]["grad_norm"] == pytest.approx(figures[1]["grad_norm"], rel=1e-4)
    assert figures[0].get("kl") == pytest.approx(figures[1].get("kl"), abs=1e-4)
    assert abs(figures[0][figure]) > 1


def test_a_loss_on_drawn_rows_without_advantages_says_which(lab: Lab, sampled: dict[str, Any]) -> None:
    loop = lab(rollout={**sampled, **CUT}, update={"use": "sft", "lr": 1e-3})
    rollout = loop.hooks.rollout(loop.ctx)
    trainer: Any = loop.phase.trainer
    with pytest.raises(PluginError, match="not among which tokens"):
        trainer.train(rollout, lambda mb: mb.token_mean(-mb.stats().logprobs_BT))
    trainer.train(rollout, lambda mb: mb.token_mean(-mb.stats(support="whole").logprobs_BT))
    trainer.train(replace(rollout, behaviour=None), lambda mb: mb.token_mean(-mb.stats().logprobs_BT))
    advantaged = rollout.scored(torch.ones(len(rollout))).advantaged(torch.ones(len(rollout)))
    trainer.train(advantaged, lambda mb: mb.token_mean(-mb.stats().logprobs_BT))
