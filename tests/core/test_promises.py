"""Promises that were once broken, each as a law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hookline
from hookline import HooklineError, MicroBatch, PluginError, concat
from hookline.cli import main
from hookline.loop.loop import PhaseLoop

Lab = Callable[..., PhaseLoop]


def two_phases(corpus: Path, adapter: bool) -> dict[str, Any]:
    prompts = str(corpus / "prompts.jsonl")
    model: dict[str, Any] = {"build": "gpt2", "layers": 1, "width": 32, "context": 64}
    return {
        "name": "two",
        "threads": 1,
        "tokenizer": {"train": "bpe", "on": str(corpus / "texts.jsonl"), "vocabulary": 300},
        "model": model | ({"adapter": {"lora": {"rank": 4}}} if adapter else {}),
        "phases": [
            {
                "name": "sft",
                "rollout": {"use": "dataset", "path": prompts},
                "update": {"use": "sft", "lr": 1e-2},
                "steps": 4,
            },
            {
                "name": "rl",
                "rollout": {
                    "use": "generate",
                    "prompts": prompts,
                    "rows": 4,
                    "samples_per_prompt": 2,
                    "max_new_tokens": 6,
                },
                "reward": "length",
                "wrap": ["kl-penalty"],
                "advantage": "gae",
                "update": {"use": "ppo", "critic": "shared", "lr": 1e-3},
                "evaluate": [{"rows": 4, "reward": ["kl", "length", {"use": "kl", "to": "sft", "name": "kl-sft"}]}],
                "steps": 2,
            },
        ],
        "trackers": [],
    }


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "lora"])
def test_the_reference_is_the_policy_as_the_phase_began(corpus: Path, tmp_path: Path, adapter: bool) -> None:
    run = hookline.run(two_phases(corpus, adapter), out=tmp_path / "run")
    rl = [row["metrics"] for row in run.rows() if row["phase"] == "rl"]
    assert rl[0]["eval/kl"] == pytest.approx(0, abs=1e-5)
    assert rl[0]["eval/kl-sft"] == pytest.approx(0, abs=1e-5)
    assert rl[1]["kl"] == pytest.approx(0, abs=1e-4)
    assert rl[-1]["eval/kl"] == pytest.approx(rl[-1]["eval/kl-sft"], abs=1e-4)


def test_eval_says_what_the_run_said_also_of_a_policy_with_a_head(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    run = hookline.run(two_phases(corpus, False), out=tmp_path / "run")
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--json"]) == 0
    found = {item["figure"]: item for item in json.loads(capsys.readouterr().out)}
    last = run.rows()[-1]["metrics"]
    for name in ("kl", "length", "kl-sft"):
        assert found[name]["value"] == pytest.approx(last[f"eval/{name}"], abs=1e-4)
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_a_missing_earlier_phase_is_refused_and_no_row_is_lost(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    experiment = two_phases(corpus, False)
    hookline.run(experiment, out=tmp_path / "run")
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "run/phases/sft")
    with pytest.raises(HooklineError, match="sft is missing, but the later phase 'rl'"):
        hookline.run(experiment, out=tmp_path / "run")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_text_that_looks_like_a_special_token_stays_text(lab: Lab) -> None:
    tokenizer = lab(update="sft").ctx.tokenizer
    ids = tokenizer.encode("a<|end|>b<|answer|>")
    assert not {tokenizer.eos, tokenizer.separator} & set(ids)
    assert tokenizer.decode(ids) == "a<|end|>b<|answer|>"


def test_rows_are_chosen_by_index_or_by_true_and_false(lab: Lab) -> None:
    loop = lab(update="sft")
    batch = loop.hooks.rollout(loop.ctx)
    chosen = batch.sample_B % 3 == 1
    assert batch.rows(chosen).sample_B.tolist() == batch.sample_B[chosen].tolist()


def test_rows_drawn_differently_are_no_batch(lab: Lab, sampled: dict[str, Any]) -> None:
    warm = lab(rollout=sampled, update="sft")
    drawn = warm.hooks.rollout(warm.ctx)
    assert drawn.behaviour is not None
    cold = replace(drawn, behaviour=replace(drawn.behaviour, sampling=hookline.Sampling(temperature=0.5)))
    with pytest.raises(ValueError, match="different sampling"):
        concat([drawn, cold])
    with pytest.raises(ValueError, match="others read from data"):
        concat([drawn, replace(drawn, behaviour=None)])


@pytest.mark.parametrize(
    "loss",
    [
        lambda mb: mb.token_mean(mb.stats().logprobs_BT) * mb.batch.mask_BT.sum(),
        lambda mb: mb.row_mean(mb.stats().logprobs_BT),
        lambda mb: mb.token_mean(mb.stats().logprobs_BT.sum(1, keepdim=True)),
        lambda mb: mb.token_mean(mb.stats().logprobs_BT.detach()),
        lambda mb: mb.token_mean(mb.stats().logprobs_BT) + 1.0,
    ],
    ids=["tensor factor", "row mean of tokens", "token mean of rows", "no gradient", "bare number"],
)
def test_a_loss_that_cannot_be_right_is_refused(lab: Lab, loss: Callable[[MicroBatch[Any]], Any]) -> None:
    loop = lab(update="sft")
    with pytest.raises(PluginError):
        loop.ctx.train(loop.hooks.rollout(loop.ctx), loss)


def test_a_reward_that_is_constant_at_first_is_never_blown_up(lab: Lab, sampled: dict[str, Any]) -> None:
    loop = lab(rollout=sampled, reward="length", wrap=["normalise"], advantage="gae", update="ppo")
    component: Any = loop.hooks.components["wrapper/normalise"]
    rollout = loop.hooks.rollout(loop.ctx)
    length: Any = loop.hooks.components["reward/length"]
    length.config = length.config.model_copy(update={"per": 1e9})
    loop.hooks.score(loop.ctx, rollout)
    assert component.count == 0
    length.config = length.config.model_copy(update={"per": 1.0, "free": 2})
    scored = loop.hooks.score(loop.ctx, rollout)
    if component.count:
        assert float(scored.reward_B.mean()) == pytest.approx(0, abs=1e-4)
        assert float(scored.reward_B.std(correction=0)) == pytest.approx(1, abs=1e-3)
    assert float(scored.reward_B.abs().max()) < 100


def test_statistics_that_somebody_changed_are_refused(lab: Lab) -> None:
    loop = lab(update="sft")
    batch = loop.hooks.rollout(loop.ctx)
    loop.ctx.stats(batch).logprobs_BT.mul_(2)
    with pytest.raises(PluginError, match="the statistic 'logprobs' was changed in place"):
        loop.ctx.stats(batch)


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        ({"wrap": ["whiten"], "update": "sft"}, "'whiten' wraps advantage, which no component answers"),
        ({"update": {"use": "sft", "weight": 2}}, "has a weight, which only the rewards of a phase can have"),
        (
            {"update": "sft", "evaluate": [{"reward": ["length", {"use": "length", "free": 1}]}]},
            "'length' appears twice",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(lab: Lab, phase: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HooklineError, match=sentence):
        lab(**phase)


def test_rotary_frequencies_keep_their_digits_in_half_precision(lab: Lab) -> None:
    llama = {"build": "llama", "layers": 1, "width": 32, "heads": 2, "context": 64}
    whole = dict(lab(llama, update="sft").ctx.role_named("policy").net.named_buffers())
    half = dict(lab({**llama, "dtype": "bfloat16"}, update="sft").ctx.role_named("policy").net.named_buffers())
    assert whole
    for name, buffer in whole.items():
        assert torch.equal(buffer, half[name])


def test_an_evaluation_of_more_rows_than_there_are_takes_all(lab: Lab, sampled: dict[str, Any]) -> None:
    loop = lab(
        rollout=sampled, reward="length", advantage="gae", update="ppo", evaluate=[{"rows": 10_000, "reward": "length"}]
    )
    _, samples = loop.evaluators[0].run(loop.ctx)
    total = len(loop.session.run.data(sampled["prompts"])) * sampled["samples_per_prompt"]
    assert len(samples) == total


def test_the_old_word_for_a_hint_still_answers() -> None:
    """As an argument too, since plugins raise these errors."""
    for error in (HooklineError, hookline.DataError, hookline.ExperimentError):
        with pytest.warns(FutureWarning, match="is now called hint"):
            err = error("a", mend="b")
        assert (err.hint, str(err)) == ("b", "a → b")
