"""The law of several processes: the same rows, gradients and figures as on one; and what breaks it is found."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from hookline import rng
from hookline.cli import main
from hookline.registry import offers
from hookline.testing.ranks import Candidate, Difference, _margin, compared

MAIN = ("grpo", "dpo", "ppo", "bradley-terry", "ilql", "causal-lm", "replay")
"""The parts of the usual pipeline: all kinds of state, of rows and of heads are among them."""
OPTIONS: dict[str, dict[str, Any]] = {
    "format": {"pattern": "a.*"},
    "function": {"path": str(Path(__file__).parents[1] / "rewards" / "users" / "of_any_row.py"), "function": "vowels"},
    "math-answer": {"answer": "prompt"},
    "turns": {"environment": {"use": "gymnasium", "path": str(Path(__file__).parents[1] / "kit" / "own_environment.py"), "make": "Own"}},
}
"""Options that nobody could guess."""
IN_LOOP = ("rollout", "reward", "wrapper", "advantage", "update", "feedback")


def candidates(names: tuple[str, ...] = ()) -> list[Candidate]:
    """The built-in components of these names, or all that take steps."""
    return [
        Candidate(offer, OPTIONS.get(offer.name, {}))
        for offer in offers.offers()
        if offer.built_in and offer.kind in IN_LOOP and (not names or offer.name in names)
    ]


def test_the_usual_pipeline_takes_the_same_steps_on_two_processes() -> None:
    found = compared(candidates(MAIN), groups=(1, 3))
    assert len(found) == len(MAIN)
    for candidate, (verdict, differences) in zip(candidates(MAIN), found):
        assert verdict.outcome == "pass", (candidate.offer.name, verdict.detail)
        assert max(one.gradient for one in differences) <= 1e-6


@pytest.mark.slow(10)
def test_what_a_latent_reward_learns_beside_the_network_takes_the_same_steps_on_two_processes() -> None:
    """Ties, the place that is shown first, and each annotator's reliability are parameters of the update (`ctx.parameter`)."""
    [offer] = [offer for offer in offers.offers() if offer.built_in and offer.name == "latent-reward"]
    options = {"noise": "learned", "comparison": "davidson", "position": True}
    [(verdict, differences)] = compared([Candidate(offer, options)], groups=(1, 3))
    assert verdict.outcome == "pass", verdict.detail
    assert max(one.gradient for one in differences) <= 1e-6


@pytest.mark.slow(200)
def test_every_built_in_component_takes_the_same_steps_on_two_processes() -> None:
    wrong = {
        candidate.offer.name: verdict.detail
        for candidate, (verdict, _) in zip(candidates(), compared(candidates()))
        if verdict.outcome != "pass"
    }
    services = {name for name, detail in wrong.items() if "has no default for" in str(detail)}
    assert services <= {"judge", "remote"}, "these ask a service that an experiment names; tests/rewards tries them"
    assert not wrong.keys() - services


BROKEN = """
    from dataclasses import replace
    import torch
    from hookline import Component, hookimpl

    class Own(Component):
        '''Divides rewards by the standard deviation of this rank's rows.'''
        name = "own"

        @hookimpl(wrapper=True)
        def hookline_score(self, ctx, rollout):
            scored = yield
            spread = float(scored.reward_B.std(correction=0)) if len(scored) else 1.0
            return replace(scored, reward_BT=scored.reward_BT / max(spread, 1e-6))

    class Sometimes(Component):
        '''Asks the other ranks only where it has rows.'''
        name = "sometimes"

        @hookimpl(wrapper=True)
        def hookline_score(self, ctx, rollout):
            scored = yield
            if len(scored):
                ctx.mean(scored.reward_B)
            return scored

    class Counts(Component):
        '''Remembers how many rows this rank has seen.'''
        name = "counts"
        seen = 0

        @hookimpl(wrapper=True)
        def hookline_score(self, ctx, rollout):
            scored = yield
            self.seen += len(scored)
            return scored

        def state_dict(self):
            return {"seen": self.seen}

        def load_state_dict(self, state):
            self.seen = state["seen"]
"""


def test_what_breaks_the_law_is_found(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(textwrap.dedent(BROKEN))
    loose = offers.loose_of([str(tmp_path / "broken.py")])
    found = compared([Candidate(offer) for offer in loose], groups=(3,))
    said = {offer.name: (verdict.outcome, verdict.detail) for offer, (verdict, _) in zip(loose, found)}
    assert [said["own"][0], said["counts"][0]] == ["fail", "fail"], said
    assert "the gradient differs by" in said["own"][1]
    assert "'counts'" in said["counts"][1]
    assert "is not the same on rank 0 and rank 1" in said["counts"][1]
    found = compared([Candidate(offer) for offer in loose if offer.name == "sometimes"], groups=(1,))
    assert "different exchanges" in found[0][0].detail


@pytest.mark.slow(15)
def test_check_compares_processes_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", "clip-reward", "--processes", "2"]) == 0
    assert "✓ processes" in capsys.readouterr().out
    assert main(["plugins", "check", "jsonl", "--processes", "2"]) == 2
    assert "takes no steps" in capsys.readouterr().err


def test_a_token_within_rounding_is_told_with_its_margin(hookline_harness: Any) -> None:
    """The margin of a drawn token: how far its random number is from the neighbour in the cumulative distribution."""
    from hookline_plugins.algorithms.grpo import GRPO

    harness = hookline_harness(GRPO)
    batch = harness.batch("rollout")
    role, u = harness.loop.phase.roles["policy"], harness.loop.phase.scope.drawing
    sample, drawn = int(batch.sample_B[0]), int(batch.token_ids_BT[0, 0])
    logits = role.prefill([batch.prompt_ids(0)], harness.tokenizer.eos).logits_BV
    edges = torch.softmax(logits.float() / batch.behaviour.sampling.temperature, -1).cumsum(-1)[0].detach().double()
    at = float(rng.uniform(u, torch.tensor([sample]), 0)) * float(edges[-1])
    below = at - float(edges[drawn - 1]) if drawn else 1.0
    found = _margin(harness, batch.behaviour, batch.prompt_ids(0), sample, 0, drawn, drawn - 1 if drawn else 1)
    assert found is not None
    assert 0.1 * below < found * 1.01, "the first power of ten beyond the distance"
    near = Difference(2, samples="sample 3 differs from token 1 on", margin=1e-7)
    assert near.problem == ""
    assert Difference(2, samples="sample 3 differs from token 1 on", margin=1e-3).problem
    assert Difference(2, samples="sample 3 differs from token 1 on").problem
