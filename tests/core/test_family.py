"""Nothing but a family knows how a model computes: one that reads in both directions trains in the same phases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hookline
from hookline import HooklineError, PluginError
from hookline.loop.loop import PhaseLoop
from hookline.registry import offers
from hookline.testing import open_phase
from hookline.training.statistics import forward, statistics

FILE = str(Path(__file__).with_name("encoder.py"))
Lab = Callable[..., PhaseLoop]


@pytest.fixture
def experiment(corpus: Path) -> Callable[..., dict[str, Any]]:
    """`experiment(*phases, family=…)`: of a tiny encoder."""

    def make(*phases: dict[str, Any], family: str = "bidirectional") -> dict[str, Any]:
        return {
            "name": "both-ways",
            "seed": 5,
            "tokenizer": {"train": "bpe", "on": str(corpus / "texts.jsonl"), "vocabulary": 300},
            "model": {"build": "tiny-encoder", "width": 16, "family": family},
            "phases": [{"name": f"phase{i}", "steps": 2, **phase} for i, phase in enumerate(phases)],
            "trackers": [],
            "plugins": [FILE],
        }

    return make


@pytest.fixture
def masked(corpus: Path) -> dict[str, Any]:
    rollout = {"use": "dataset", "path": str(corpus / "prompts.jsonl"), "rows": 8}
    return {"rollout": rollout, "update": {"use": "sft", "lr": 3e-2}, "steps": 6}


@pytest.fixture
def compared(corpus: Path) -> dict[str, Any]:
    rollout = {"use": "preferences", "path": str(corpus / "pairs.jsonl"), "rows": 6}
    return {"rollout": rollout, "update": {"use": "bradley-terry", "lr": 3e-2}, "steps": 8}


POOLED = {"use": "pooled-reward", "name": "reward"}


@pytest.mark.parametrize("head", ["reward", POOLED], ids=["per token", "per row"])
def test_guessing_masked_tokens_then_a_reward_model(
    experiment: Any, masked: dict[str, Any], compared: dict[str, Any], head: Any, tmp_path: Path
) -> None:
    reward = {**compared, "model": {"from": "phase0", "head": head}}
    run = hookline.run(experiment(masked, reward), out=tmp_path / "run")
    losses = [row["metrics"]["loss"] for row in run.rows()]
    guessing, judging = losses[:6], losses[6:]
    assert guessing[-1] < guessing[0] - 0.5
    assert judging[-1] < judging[0] - 0.1
    run.close()


def test_log_probs_are_those_of_the_masked_token_whatever_stands_to_its_right(
    experiment: Any, masked: dict[str, Any], lab_of: Callable[..., PhaseLoop]
) -> None:
    loop = lab_of(experiment(masked))
    batch = loop.hooks.rollout(loop.ctx)
    role = loop.ctx.role_named("policy")
    assert role.check_fused()
    found = loop.ctx.stats(batch, want=("logprobs", "entropy"))
    fused = found.logprobs_BT
    role.fused = False
    by_logits = statistics(role, batch, ("logprobs",), 10**6).logprobs_BT
    torch.testing.assert_close(fused, by_logits, atol=1e-5, rtol=0)
    other = batch.prompt_ids_BP.clone()
    other[:, 0] = 7
    role.fused = True
    moved = statistics(role, replace(batch, prompt_ids_BP=other), ("logprobs",), 10**6).logprobs_BT
    assert not torch.equal(fused, moved)
    swapped = batch.token_ids_BT.clone()
    swapped[batch.mask_BT] = 3  # the scored tokens themselves are not seen
    hidden = role.states(batch, {"before"})["before"]
    torch.testing.assert_close(hidden, role.states(replace(batch, token_ids_BT=swapped), {"before"})["before"])


def test_a_figure_of_a_row_lies_on_its_last_chosen_token(
    experiment: Any, compared: dict[str, Any], lab_of: Callable[..., PhaseLoop]
) -> None:
    loop = lab_of(experiment({**compared, "model": {"head": POOLED}}))
    batch = loop.hooks.rollout(loop.ctx)
    mask_BT = batch.mask_BT.clone()
    mask_BT[0] = False
    mask_BT[1, 1:] = False
    batch = replace(batch, mask_BT=mask_BT)
    role = loop.ctx.role_named("policy")
    found = forward(role, batch, ("reward",))["reward"]
    value_B = role.heads["reward"](role.states(batch, {"row"})["row"])
    expected = torch.zeros(mask_BT.shape)
    for row in range(1, len(batch)):
        expected[row, int(mask_BT[row].nonzero()[-1])] = value_B[row]
    torch.testing.assert_close(found, expected)
    with pytest.raises(PluginError, match="no figures per token"):
        forward(role, batch, ("reward.logsumexp",))


@pytest.fixture
def lab_of(tmp_path: Path) -> Any:
    """The loop of an experiment's first phase."""
    with ExitStack() as opened:
        yield lambda experiment: opened.enter_context(open_phase(experiment))


# -- what it cannot do


def refused(experiment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The sentence with which a run is refused before weights exist."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were made")

    monkeypatch.setattr("hookline.models.load.build_policy", never)
    with pytest.raises(HooklineError) as caught:
        hookline.run(experiment, out=tmp_path / "refused")
    return str(caught.value)


@pytest.mark.parametrize("family", ["bidirectional", "causal-without"])
def test_a_rollout_that_samples_is_refused_before_weights_load(
    experiment: Any, masked: dict[str, Any], sampled: dict[str, Any], family: str, monkeypatch: Any, tmp_path: Path
) -> None:
    phase = {**masked, "rollout": sampled}
    if family == "causal-without":  # the same as an evaluation of a phase that reads
        phase = {**masked, "evaluate": [{"rollout": sampled, "reward": "length"}]}
    said = refused(experiment(phase), monkeypatch, tmp_path)
    assert "'generate' needs a model that decodes ('decodes'), which the experiment's model does not have" in said
    assert said.count("decodes") == 2


def test_a_head_on_a_missing_side_is_refused_before_weights_load(
    experiment: Any, compared: dict[str, Any], monkeypatch: Any, tmp_path: Path
) -> None:
    wrong = experiment({**compared, "model": {"head": "reward"}}, family="pooling")
    assert "'reward' needs a state after each token ('after')" in refused(wrong, monkeypatch, tmp_path)
    both = experiment({**compared, "model": {"head": POOLED}}, family="causal")
    assert "'reward' needs a state of the whole row ('row')" in refused(both, monkeypatch, tmp_path)


def test_a_name_that_is_no_family_is_refused(
    experiment: Any, masked: dict[str, Any], monkeypatch: Any, tmp_path: Path
) -> None:
    assert "'tiny-encoder' is not a family" in refused(experiment(masked, family="tiny-encoder"), monkeypatch, tmp_path)
    said = refused(experiment(masked, family="bidirektional"), monkeypatch, tmp_path)
    assert "did you mean 'bidirectional'?" in said
    phase = {**masked, "model": {"family": "causal"}}
    assert "a phase starts from the experiment's model" in refused(experiment(phase), monkeypatch, tmp_path)


UPDATES = [offer.name for offer in offers.offers() if offer.kind == "update" and offer.distribution == "hookline"]
OPTIONS = {"reinforce": [{}, {"baseline": "group"}], "best-of-n": [{}, {"keep": "share"}]}


@pytest.mark.parametrize("update", UPDATES)
def test_every_built_in_update_says_what_it_reads_of_the_model(update: str) -> None:
    """A likelihood, or a value of its own head, is read before the token; else it reads a head that the phase names."""
    cls = offers.find("update", update).load()
    for options in OPTIONS.get(update, [{}]):
        needs = set(cls(cls.Config.model_validate(options)).needs)
        assert "before" in needs or any(need.startswith("head:") for need in needs)


@pytest.mark.parametrize(
    ("change", "who"),
    [
        ({"update": {"use": "sft", "lr": 1e-3}}, "sft"),
        ({"update": {"use": "dpo", "lr": 1e-3}}, "dpo"),
        ({"update": {"use": "best-of-n", "keep": "share", "lr": 1e-3}}, "best-of-n"),
        ({"update": {"use": "ilql", "lr": 1e-3}}, "ilql"),
        ({"wrap": "kl-penalty"}, "kl-penalty"),
        ({"reward": "perplexity"}, "perplexity"),
        ({"evaluate": [{"reward": "kl"}]}, "kl"),
    ],
    ids=["sft", "dpo", "best-of-n", "ilql", "a wrapper", "a reward", "an evaluation"],
)
def test_what_reads_likelihoods_is_refused_before_weights_load_where_the_family_has_none(
    experiment: Any, compared: dict[str, Any], change: dict[str, Any], who: str, monkeypatch: Any, tmp_path: Path
) -> None:
    phase = {**compared, "model": {"head": POOLED}}
    hookline.run(experiment({**phase, "steps": 1}, family="pooling"), out=tmp_path / "fine").close()
    said = refused(experiment({**phase, **change}, family="pooling"), monkeypatch, tmp_path)
    assert (
        f"'{who}' needs a state that predicts each token ('before'), which the experiment's model does not have" in said
    )


def test_a_statistic_or_a_late_head_on_a_missing_side_is_one_sentence(
    experiment: Any, compared: dict[str, Any], lab_of: Callable[..., PhaseLoop]
) -> None:
    loop = lab_of(experiment({**compared, "model": {"head": POOLED}}, family="pooling"))
    batch = loop.hooks.rollout(loop.ctx)
    with pytest.raises(PluginError, match=r"'logprobs' of role 'policy' needs a state that predicts each token"):
        loop.ctx.stats(batch)
    loop.phase.roles.settling = True
    with pytest.raises(PluginError, match=r"head 'value' of role 'policy' needs .* models of family 'pooling'"):
        loop.ctx.head("value", lambda width: torch.nn.Linear(width, 1))
    with pytest.raises(PluginError, match=r"has no output layer over tokens"):
        assert loop.ctx.role_named("policy").head


def test_drawing_from_a_model_that_does_not_decode_is_one_sentence(
    experiment: Any, masked: dict[str, Any], lab_of: Callable[..., PhaseLoop]
) -> None:
    ctx = lab_of(experiment(masked)).ctx
    with pytest.raises(PluginError, match=r"'core', which draws from role 'policy', needs a model that decodes"):
        ctx.draw([[1]], torch.arange(1), sampling_=hookline.Sampling(), max_new_tokens=2)
