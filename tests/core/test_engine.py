"""Laws of token statistics and training: they hold for any split, padding and order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hookline import (
    Advantaged,
    Batch,
    Context,
    ExperimentError,
    HooklineError,
    Loss,
    MicroBatch,
    NumbersError,
    PluginError,
    Rollout,
    Sampling,
    concat,
)
from hookline.loop.loop import PhaseLoop
from hookline.training.statistics import split_by_tokens, statistics

Lab = Callable[..., PhaseLoop]
SFT = {"use": "sft", "lr": 1e-3}


def gradient(
    loop: PhaseLoop, batch: Any, loss: Callable[[MicroBatch[Any]], Loss], micro_tokens: int, unit: Any = "row"
) -> dict[str, Tensor]:
    """The gradient of one optimiser step, caught before the step is taken."""
    trainer = loop.phase.trainer
    assert trainer is not None
    caught: dict[str, Tensor] = {}

    def catch(share: float) -> float:
        caught.update({name: p.grad.clone() for name, p in trainer.parameters.items() if p.grad is not None})
        return 0.0

    trainer.config = trainer.config.model_copy(update={"micro_tokens": micro_tokens, "grad_clip": 1e9})
    trainer.optimiser.step = catch  # type: ignore[method-assign]
    loop.ctx.train(batch, loss, unit)
    loop.phase.metrics.collect()
    return caught


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert a.keys() == b.keys()
    largest = max(float(g.abs().max()) for g in a.values())
    assert largest > 0
    worst = max(float((a[name] - b[name]).abs().max()) for name in a)
    assert worst <= tolerance * max(largest, 1.0), f"{worst} of {largest}"


def nll(mb: MicroBatch[Batch]) -> Loss:
    return mb.token_mean(-mb.stats().logprobs_BT)


def reference_logprobs(ctx: Context, batch: Batch, row: int, temperature: float = 1.0) -> Tensor:
    """log p of each response token from the model's own logits, in float64."""
    ids = torch.tensor([batch.prompt_ids(row) + batch.response_ids(row)])
    with torch.no_grad():
        logits = ctx.role_named("policy").net(ids).logits.double() / temperature
    P, T = int(batch.prompt_length_B[row]), int(batch.length_B[row])
    return torch.log_softmax(logits, -1)[0, P - 1 : P - 1 + T].gather(1, ids[0, P:, None])[:, 0]


@pytest.mark.parametrize("micro_tokens", [1, 20, 57, 100_000])
def test_the_gradient_does_not_depend_on_the_micro_batch(lab: Lab, micro_tokens: int) -> None:
    whole, split = lab(update=SFT), lab(update=SFT)
    batch = whole.hooks.rollout(whole.ctx)
    assert_same(gradient(whole, batch, nll, 10**9), gradient(split, batch, nll, micro_tokens))


def test_row_means_and_named_means_are_global_too(lab: Lab) -> None:
    batch = lab(update=SFT).hooks.rollout(lab(update=SFT).ctx)
    weight_BT = (batch.token_ids_BT % 3 == 0).float() * batch.mask_BT
    batch = batch.with_extra(chosen_BT=weight_BT)

    def loss(mb: MicroBatch[Batch]) -> Loss:
        logprobs = mb.stats().logprobs_BT
        return mb.row_mean(logprobs.sum(1)) * 0.5 + mb.mean_over("chosen_BT", -logprobs)

    assert_same(gradient(lab(update=SFT), batch, loss, 10**9), gradient(lab(update=SFT), batch, loss, 30))


def test_padding_and_masked_tokens_change_nothing(lab: Lab) -> None:
    loop = lab(update=SFT)
    batch = loop.hooks.rollout(loop.ctx)
    B, T = batch.token_ids_BT.shape
    outside = ~batch.mask_BT
    noisy = replace(batch, token_ids_BT=torch.where(outside, 7, batch.token_ids_BT))
    wide = replace(
        noisy,
        token_ids_BT=torch.cat([noisy.token_ids_BT, torch.full((B, 5), 9)], 1),
        mask_BT=torch.cat([batch.mask_BT, torch.zeros(B, 5, dtype=torch.bool)], 1),
    )
    plain = loop.ctx.stats(batch).logprobs_BT
    padded = loop.ctx.stats(wide).logprobs_BT
    torch.testing.assert_close(padded[:, :T], plain, atol=1e-6, rtol=0)
    assert float(padded[:, T:].abs().max()) == 0


def test_permuting_rows_permutes_answers(lab: Lab) -> None:
    loop = lab(update=SFT)
    batch = loop.hooks.rollout(loop.ctx)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    moved = loop.ctx.stats(batch.rows(order)).logprobs_BT
    torch.testing.assert_close(moved, loop.ctx.stats(batch).logprobs_BT[order], atol=2e-6, rtol=0)


def test_statistics_are_the_model_s_own_logits(lab: Lab) -> None:
    loop = lab(update=SFT)
    batch = loop.hooks.rollout(loop.ctx)
    found = loop.ctx.stats(batch, want=("logprobs", "entropy", "logsumexp"))
    for row in range(len(batch)):
        expected = reference_logprobs(loop.ctx, batch, row)
        torch.testing.assert_close(found.logprobs_BT[row, : len(expected)].double(), expected, atol=2e-5, rtol=0)
    assert float(found.entropy_BT[batch.mask_BT].min()) > 0


def test_a_hole_in_the_mask_is_skipped_but_still_read(lab: Lab) -> None:
    loop = lab(update=SFT)
    batch = loop.hooks.rollout(loop.ctx)
    mask = batch.mask_BT.clone()
    mask[:, 1] = False
    full = loop.ctx.stats(batch).logprobs_BT
    holed = loop.ctx.stats(replace(batch, mask_BT=mask)).logprobs_BT  # the same tokens, but not the cached figures
    torch.testing.assert_close(holed, torch.where(mask, full, 0.0), atol=2e-6, rtol=0)


def test_a_model_whose_head_is_more_than_a_product_takes_the_logits_path(lab: Lab) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    loop = lab(update=SFT)
    role = loop.ctx.role_named("policy")
    batch = loop.hooks.rollout(loop.ctx)
    torch.manual_seed(0)
    role.net = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=64,
            final_logit_softcapping=0.5,
            attn_implementation="eager",
        )
    ).eval()
    role.fused = None
    found = statistics(role, batch, ("logprobs",), 200)
    assert role.fused is False
    for row in range(len(batch)):
        expected = reference_logprobs(loop.ctx, batch, row)
        torch.testing.assert_close(found.logprobs_BT[row, : len(expected)].double(), expected, atol=2e-5, rtol=0)


def test_lora_trains_the_adapter_alone_and_its_reference_is_the_adapter_off(lab: Lab, sampled: dict[str, Any]) -> None:
    model = {"build": "gpt2", "layers": 1, "width": 32, "heads": 2, "context": 64, "adapter": {"lora": {"rank": 4}}}
    loop = lab(
        model,
        rollout=sampled,
        reward="length",
        wrap=[{"use": "kl-penalty", "beta": 0.1}],
        advantage="gae",
        update={"use": "ppo", "lr": 1e-2, "critic": "shared"},
    )
    policy, reference = loop.ctx.role_named("policy"), loop.ctx.role_named("reference")
    before = {name: p.detach().clone() for name, p in policy.parameters().items()}
    for _ in range(2):
        loop.step()
        loop.phase.scope.step += 1
    changed = {name for name, p in policy.parameters().items() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora" in name or name.startswith("heads.") for name in changed)
    assert reference.net is policy.net
    batch = loop.hooks.rollout(loop.ctx)
    fresh = lab(model | {"adapter": None}, update=SFT)
    torch.testing.assert_close(
        loop.ctx.stats(batch, model="reference").logprobs_BT, fresh.ctx.stats(batch).logprobs_BT, atol=1e-5, rtol=0
    )
    assert float((loop.ctx.stats(batch).logprobs_BT - fresh.ctx.stats(batch).logprobs_BT).abs().max()) > 1e-4


def test_a_bare_tensor_is_no_loss(lab: Lab) -> None:
    loop = lab(update=SFT)
    with pytest.raises(PluginError, match=r"not a hookline.Loss"):
        loop.ctx.train(loop.hooks.rollout(loop.ctx), lambda mb: -mb.stats().logprobs_BT.mean())  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_row_and_leaves_the_weights(lab: Lab, bad: float) -> None:
    loop = lab(update=SFT)
    batch = loop.hooks.rollout(loop.ctx)
    policy = loop.ctx.role_named("policy")
    before = policy.hash()

    def loss(mb: MicroBatch[Batch]) -> Loss:
        return mb.token_mean(torch.where(mb.batch.sample_B[:, None] == 3, bad, -mb.stats().logprobs_BT))

    with pytest.raises(NumbersError, match=r"sample 3"):
        loop.ctx.train(batch, loss)
    assert policy.hash() == before


def test_a_gradient_that_is_not_finite_names_the_parameter_and_leaves_the_weights(lab: Lab) -> None:
    loop = lab(update=SFT)
    policy = loop.ctx.role_named("policy")
    before = policy.hash()

    def loss(mb: MicroBatch[Batch]) -> Loss:
        logprobs = mb.stats().logprobs_BT
        return mb.token_mean((logprobs - logprobs.detach()).abs().sqrt())  # finite value 0, infinite slope

    with pytest.raises(NumbersError, match=r"gradient of policy/\S+ is not finite"):
        loop.ctx.train(loop.hooks.rollout(loop.ctx), loss)
    assert policy.hash() == before


def test_an_empty_batch_is_a_step_without_update(lab: Lab) -> None:
    loop = lab(update=SFT)
    batch = loop.hooks.rollout(loop.ctx)
    before = loop.ctx.role_named("policy").hash()
    loop.ctx.train(batch.rows([]), nll)
    assert loop.ctx.role_named("policy").hash() == before


def test_micro_batches_hold_every_row_once_and_keep_groups_whole(lab: Lab) -> None:
    loop = lab(update=SFT)
    batch = loop.hooks.rollout(loop.ctx)
    units = [[0, 5], [1, 2, 7], [3], [4, 6]]
    parts = split_by_tokens(batch, 40, units)
    assert sorted(row for part in parts for row in part) == list(range(len(batch)))
    assert all(any(set(unit) <= set(part) for part in parts) for unit in units)


def test_rows_much_shorter_than_a_part_are_not_padded_to_it(lab: Lab) -> None:
    loop = lab(update=SFT)
    batch = loop.hooks.rollout(loop.ctx)
    lengths = [128] * 16 + [100] * 4 + [16] * 200 + [15] * 8
    rows = replace(
        batch.rows([0] * len(lengths)),
        prompt_length_B=torch.ones(len(lengths), dtype=torch.long),
        length_B=torch.tensor(lengths) - 1,
    )
    parts = split_by_tokens(rows, 16384)
    widths = [max(lengths[row] for row in part) for part in parts]
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    padded = sum(len(part) * width for part, width in zip(parts, widths))
    assert padded < 1.25 * sum(lengths)
    assert all(len(part) * width >= 1024 for part, width in zip(parts[:-1], widths))


# -- PPO's objective


def advantaged(loop: PhaseLoop) -> Advantaged:
    rollout = loop.hooks.rollout(loop.ctx)
    return loop.hooks.advantage(loop.ctx, loop.hooks.score(loop.ctx, rollout))


def ppo_lab(lab: Lab, sampled: dict[str, Any], **options: Any) -> PhaseLoop:
    update = {"use": "ppo", "lr": 1e-3, "value_weight": 0.0, **options}
    return lab(rollout=sampled, reward="length", advantage="gae", update=update)


def test_ppo_s_first_gradient_is_reinforce_s(lab: Lab, sampled: dict[str, Any]) -> None:
    loop = ppo_lab(lab, sampled)
    component: Any = loop.planned.update.component
    batch = advantaged(loop)
    batch = batch.with_extra(old_logprobs_BT=loop.ctx.stats(batch).logprobs_BT)
    ppo = gradient(loop, batch, component.loss, 10**9)

    def reinforce(mb: MicroBatch[Advantaged]) -> Loss:
        return mb.token_mean(-mb.stats().logprobs_BT * mb.batch.advantage_BT)

    plain = gradient(ppo_lab(lab, sampled), batch, reinforce, 10**9)
    assert_same({k: v for k, v in ppo.items() if k in plain and k.startswith("policy/")}, plain, 1e-5)


def test_zero_advantage_is_zero_gradient(lab: Lab, sampled: dict[str, Any]) -> None:
    loop = ppo_lab(lab, sampled)
    component: Any = loop.planned.update.component
    batch = advantaged(loop)
    batch = replace(
        batch.with_extra(old_logprobs_BT=loop.ctx.stats(batch).logprobs_BT),
        advantage_BT=torch.zeros_like(batch.advantage_BT),
    )
    found = gradient(loop, batch, component.loss, 50)
    assert max(float(g.abs().max()) for g in found.values()) == 0


def test_ppo_s_gradient_does_not_depend_on_the_micro_batch(lab: Lab, sampled: dict[str, Any]) -> None:
    results = []
    for micro in (10**9, 23):
        loop = ppo_lab(lab, sampled, value_weight=0.5, entropy_bonus=0.01)
        component: Any = loop.planned.update.component
        batch = advantaged(loop)
        batch = batch.with_extra(old_logprobs_BT=loop.ctx.stats(batch).logprobs_BT - 0.1)
        results.append(gradient(loop, batch, component.loss, micro))
    assert_same(*results)


def test_bradley_terry_s_gradient_does_not_depend_on_the_micro_batch(lab: Lab, corpus: Any) -> None:
    results = []
    for micro in (10**9, 40):
        loop = lab(
            model={"build": "gpt2", "layers": 1, "width": 32, "context": 64},
            rollout={"use": "preferences", "path": str(corpus / "pairs.jsonl"), "rows": 5},
            update={"use": "bradley-terry", "micro_tokens": micro},
            read={"head": {"use": "reward", "std": 0.2}},
        )
        component: Any = loop.planned.update.component
        scored = loop.hooks.score(loop.ctx, loop.hooks.rollout(loop.ctx))
        scored = scored.with_extra(wins_B=(scored.reward_B > 0).float())
        results.append(gradient(loop, scored, component.loss, micro, "group"))
    assert_same(*results)


# -- sampling


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.6},
        {"top_k": 5},
        {"top_p": 0.8},
        {"temperature": 1.7, "top_p": 0.9, "top_k": 40},
        {"min_p": 0.1},
        {"repetition_penalty": 1.4, "presence_penalty": 0.5, "frequency_penalty": 0.2, "min_new_tokens": 3, "top_p": 0.9},
    ],
)
def test_the_trainer_s_log_probs_are_the_sampler_s(lab: Lab, sampled: dict[str, Any], options: dict[str, Any]) -> None:
    """On the same weights every log-ratio is 0: temperature and kept ids belong to the definition."""
    loop = lab(rollout={**sampled, **options}, update=SFT)
    rollout = loop.hooks.rollout(loop.ctx)
    assert rollout.behaviour is not None
    gap = (loop.ctx.stats(rollout).logprobs_BT - rollout.behaviour.logprobs_BT)[rollout.mask_BT]
    assert float(gap.abs().max()) < 2e-5
    few = rollout.rows([3, 1])
    torch.testing.assert_close(loop.ctx.stats(few).logprobs_BT, few.behaviour.logprobs_BT, atol=2e-5, rtol=0)  # type: ignore[union-attr]
    both = concat([few, rollout.rows([0, 5, 2])])
    torch.testing.assert_close(loop.ctx.stats(both).logprobs_BT, both.behaviour.logprobs_BT, atol=2e-5, rtol=0)  # type: ignore[union-attr]


def test_stop_strings_end_answers_and_stay_in_them(lab: Lab, sampled: dict[str, Any]) -> None:
    """The tokenizer's pieces are bytes: a string may begin and end within one, and a letter may be several."""
    long = {**sampled, "max_new_tokens": 30}
    free = lab(rollout=long, update=SFT)
    answers = free.hooks.rollout(free.ctx)
    texts = [answers.response_text(row) for row in range(len(answers))]
    stop = [next(text[4:6] for text in texts if len(text) > 6), "\u00e9"]
    loop = lab(rollout={**long, "stop_strings": stop}, update=SFT)
    rollout = loop.hooks.rollout(loop.ctx)
    stopped = 0
    for row, text in enumerate(texts):
        ids = rollout.response_ids(row)
        assert ids == answers.response_ids(row)[: len(ids)], "what is drawn before the string is the same"
        if any(string in text for string in stop):
            assert rollout.finish_reason[row] == "stop"
            assert any(string in rollout.response_text(row) for string in stop)
            assert not any(string in rollout.decode(ids[:-1]) for string in stop), "it ends with the first one"
            stopped += 1
        else:
            assert ids == answers.response_ids(row)
    assert stopped
    with pytest.raises(ExperimentError, match="min_new_tokens is 31, but max_new_tokens is 30"):
        lab(rollout={**long, "min_new_tokens": 31}, update=SFT)


def test_stop_tokens_end_answers_beside_the_tokenizers_own(lab: Lab, sampled: dict[str, Any]) -> None:
    long = {**sampled, "max_new_tokens": 30}
    free = lab(rollout=long, update=SFT)
    answers, eos = free.hooks.rollout(free.ctx), free.session.tokenizer.eos
    said = [answers.response_ids(row) for row in range(len(answers))]
    stop = [next(ids[3] for ids in said if len(ids) > 4), said[-1][0]]
    loop = lab(rollout={**long, "stop_token_ids": stop}, update=SFT)
    rollout = loop.hooks.rollout(loop.ctx)
    assert rollout.behaviour is not None
    assert rollout.behaviour.ends == tuple(dict.fromkeys((eos, *stop)))
    for row, ids in enumerate(said):
        first = next((at for at, token in enumerate(ids) if token in {eos, *stop}), None)
        assert rollout.response_ids(row) == ids[: None if first is None else first + 1], "it stays in the answer"
        assert rollout.finish_reason[row] == ("length" if first is None else "stop")
    assert rollout.response_ids(len(said) - 1) == said[-1][:1], "an answer may end with its first token"
    held = lab(rollout={**long, "stop_token_ids": stop, "min_new_tokens": 6}, update=SFT)
    assert int(held.hooks.rollout(held.ctx).length_B.min()) >= 7, "a minimum holds for them too"
    vocabulary = free.ctx.role_named("policy").vocabulary
    odd = lab(rollout={**long, "stop_token_ids": vocabulary}, update=SFT)
    with pytest.raises(ExperimentError, match=f"stop_token_ids has {vocabulary}, but the model's ids go from 0 to {vocabulary - 1}"):
        odd.hooks.rollout(odd.ctx)


def test_one_token_more_than_the_context_is_refused(lab: Lab, sampled: dict[str, Any]) -> None:
    ctx = lab(rollout=sampled, update=SFT).ctx
    context = ctx.role_named("policy").context
    fits = [[1] * (context - 4), [1, 2]]
    assert ctx.draw(fits, torch.arange(2), sampling_=Sampling(), max_new_tokens=4).length_B.max() <= 4
    for prompts, new in (([[1, 2], [1] * (context - 3)], 4), (fits, 5)):
        with pytest.raises(ExperimentError, match=f"and {new} new ones make {context + 1}, but the model has {context} positions"):
            ctx.draw(prompts, torch.arange(2), sampling_=Sampling(), max_new_tokens=new)


def test_a_sample_does_not_depend_on_its_neighbours(lab: Lab, sampled: dict[str, Any]) -> None:
    loop = lab(rollout=sampled, update=SFT)
    rollout = loop.hooks.rollout(loop.ctx)
    alone = loop.ctx.draw(
        [rollout.prompt_ids(4)],
        rollout.sample_B[4:5],
        sampling_=rollout.behaviour.sampling,
        max_new_tokens=7,  # type: ignore[union-attr]
    )
    assert alone.token_ids_BT[0, : int(alone.length_B[0])].tolist() == rollout.response_ids(4)
    assert len({tuple(rollout.response_ids(i)) for i in range(len(rollout))}) > len(rollout) // 2, "samples differ"


def test_tokens_are_drawn_as_the_softmax_says(lab: Lab, sampled: dict[str, Any]) -> None:
    loop = lab(update=SFT)
    prompt = loop.session.tokenizer.prompt("open")
    n = 20_000
    weight, _ = loop.ctx.role_named("policy").head
    weight.data.mul_(30)  # far from uniform
    drawn = loop.ctx.draw([prompt] * n, torch.arange(n), sampling_=Sampling(), max_new_tokens=1)
    with torch.no_grad():
        p = torch.softmax(loop.ctx.role_named("policy").net(torch.tensor([prompt])).logits[0, -1].double(), 0)
    frequency = torch.bincount(drawn.token_ids_BT[:, 0], minlength=len(p)).double() / n
    assert float(p.max()) > 0.05
    error = (frequency - p) / (p * (1 - p) / n).sqrt().clamp(min=1e-9)
    assert float(error[p > 5e-4].abs().max()) < 4.5


def test_rollouts_are_frozen_types(lab: Lab) -> None:
    rollout: Rollout = lab(update=SFT).hooks.rollout(lab(update=SFT).ctx)
    with pytest.raises(AttributeError):
        rollout.mask_BT = None  # type: ignore[misc,assignment]
    with pytest.raises(ValueError, match="suffix"):
        rollout.with_extra(weights=torch.ones(len(rollout)))
    with pytest.raises(ValueError, match="but the batch has B"):
        rollout.with_extra(weights_B=torch.ones(len(rollout) + 1))


def test_asking_for_a_role_nobody_made_names_those_there_are(lab: Lab) -> None:
    loop = lab(update=SFT)
    with pytest.raises(HooklineError, match="this phase has the roles policy"):
        loop.ctx.stats(loop.hooks.rollout(loop.ctx), model="refrence")
