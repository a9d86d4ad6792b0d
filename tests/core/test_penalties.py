"""Penalties, minimum length and stop strings: what transformers' processors say, in drawing and in the statistics of training alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor
from transformers.generation import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hookline import ExperimentError, PluginError, Sampling
from hookline.batch.columns import pad_rows
from hookline.batch.penalties import penalised, seen_before
from hookline.batch.stages import Rollout
from hookline.contract.engine import Completion
from hookline.inference.completions import Asked, join
from hookline.inference.decode import decode
from hookline.inference.past import Past, Stops
from hookline.models.causal import Causal
from hookline.models.role import Role
from hookline.training.statistics import forward, statistics

V = 40
TEXT = {
    "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 80, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}
MODELS: dict[str, Any] = {
    "gpt2": tf.GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=2, n_positions=80, **SPECIAL),
    "llama": tf.LlamaConfig(**TEXT),
    "mamba": tf.MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=4, **SPECIAL),
    "gemma2, capped logits": tf.Gemma2Config(**TEXT, head_dim=8, sliding_window=80, final_logit_softcapping=3.0),
}  # fmt: skip
PROMPTS = [[(7 * i + 3 * j) % V for j in range(n)] for i, n in enumerate((3, 9, 1, 20, 9, 2, 5, 17, 3, 12))]
ENDS = (11, 12)
ALL = Sampling(
    temperature=0.7, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3, min_new_tokens=5, top_p=0.95, min_p=0.01
)
SAMPLINGS = {
    "repetition": Sampling(repetition_penalty=1.5),
    "reward for repeating": Sampling(repetition_penalty=0.8, presence_penalty=-0.5, frequency_penalty=-0.2),
    "presence": Sampling(presence_penalty=1.5),
    "frequency": Sampling(frequency_penalty=0.7, temperature=1.4),
    "minimum": Sampling(min_new_tokens=6),
    "everything": ALL,
    "the likeliest": replace(ALL, top_k=15, top_p=1.0),
}


def role_of(name: str, scale: float = 4) -> Role:
    family = Causal(Causal.Config())
    family.instance = "causal"
    torch.manual_seed(0)
    role = Role("policy", tf.AutoModelForCausalLM.from_config(MODELS[name]).eval(), family)
    for parameter in role.parameters().values():
        if parameter.dim() > 1:
            parameter.data.mul_(scale)
    return role


def drawn(role: Role, sampling: Sampling, prompts: Sequence[Sequence[int]] = PROMPTS, **options: Any) -> list[Completion]:
    given: dict[str, Any] = {"max_new_tokens": 24, "ends": ENDS, "seed": 5} | options
    n = len(prompts)
    return decode({"policy": role}, prompts, torch.arange(n) * 7, torch.arange(n) % 4 == 3, sampling=sampling, **given)


def processed(logits_V: Tensor, prompt: Sequence[int], answer: Sequence[int], sampling: Sampling) -> Tensor:
    """What transformers makes of float64 logits, with OpenAI's penalties, which it does not have, by their formula."""
    ids, logits = torch.tensor([[*prompt, *answer]]), logits_V[None].clone()
    if sampling.repetition_penalty != 1:  # each id once: the gradient of its scatter would count each occurrence
        logits = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids.unique()[None], logits)
    for token in set(answer):
        logits[0, token] -= answer.count(token) * sampling.frequency_penalty + sampling.presence_penalty
    after = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.min_new_tokens:
        after.append(MinNewTokensLengthLogitsProcessor(len(prompt), sampling.min_new_tokens, list(ENDS)))
    if sampling.top_k:
        after.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        after.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        after.append(MinPLogitsWarper(sampling.min_p))
    return after(ids, logits)[0]


def rollout(prompts: Sequence[Sequence[int]], found: Sequence[Completion], sampling: Sampling) -> Rollout:
    drawn = join(found, Asked(sampling, 24, ENDS, V, 0), "the engine")
    prompt_ids_BP, prompt_length_B = pad_rows(prompts)
    sample_B = torch.arange(len(prompts))
    return Rollout(
        prompt_ids_BP=prompt_ids_BP, prompt_length_B=prompt_length_B, token_ids_BT=drawn.token_ids_BT, length_B=drawn.length_B,
        mask_BT=torch.arange(drawn.token_ids_BT.shape[1]) < drawn.length_B[:, None], group_B=sample_B, sample_B=sample_B,
        records=({},) * len(prompts), decode=lambda ids: "", finish_reason=drawn.finish_reason, source=("policy",) * len(prompts),
        behaviour=drawn.behaviour,
    )  # fmt: skip


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("name", MODELS)
def test_log_probs_and_kept_ids_are_those_of_transformers_processors(name: str, sampling: Sampling) -> None:
    role = role_of(name)
    exact = role_of(name).net.double()
    tokens = 0
    for prompt, one in zip(PROMPTS, drawn(role, sampling)):
        answer = one.token_ids.tolist()
        with torch.no_grad():
            logits_TV = exact(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        for t, token in enumerate(answer):
            expected = torch.log_softmax(processed(logits_TV[t], prompt, answer[:t], sampling), -1)
            assert one.logprobs is not None
            assert float(one.logprobs[t]) == pytest.approx(float(expected[token]), abs=2e-4)
            if one.kept_ids is not None:
                kept = one.kept_ids.ids[one.kept_ids.offsets[t] : one.kept_ids.offsets[t + 1]]
                assert kept.tolist() == expected.isfinite().nonzero()[:, 0].tolist()
            tokens += 1
        assert len(answer) > sampling.min_new_tokens
    assert tokens > 100


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("name", ["gpt2", "gemma2, capped logits"])
def test_training_computes_ratios_in_the_distribution_that_was_drawn_from(name: str, sampling: Sampling) -> None:
    role = role_of(name)
    assert role.check_fused() == (name == "gpt2")
    batch = rollout(PROMPTS, drawn(role, sampling), sampling)
    assert batch.behaviour is not None
    own = statistics(role, batch, ("logprobs", "entropy"), 100)
    torch.testing.assert_close(own.logprobs_BT, batch.behaviour.logprobs_BT, rtol=0, atol=2e-4)
    plain = statistics(role, replace(batch, behaviour=None), ("logprobs",), 100)
    assert float((plain.logprobs_BT - own.logprobs_BT).abs().max()) > 0.05, "it is another distribution than the model's own"


def test_the_gradient_is_that_of_the_changed_logits_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    role, sampling = role_of("gpt2"), replace(ALL, top_p=1.0, min_p=0.0)
    batch = rollout(PROMPTS, drawn(role, sampling), sampling)
    monkeypatch.setattr("hookline.training.statistics.RESHAPED", 7 * V)  # seven tokens at a time
    found = forward(role, batch, ("logprobs", "entropy"))
    (found["logprobs"].sum() + found["entropy"].sum()).backward()
    ours = {name: p.grad.double() for name, p in role.parameters().items() if p.grad is not None}
    exact = role_of("gpt2")
    exact.net.double()
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(batch)):
        prompt, answer = batch.prompt_ids(row), batch.response_ids(row)
        logits_TV = exact.net(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        for t, token in enumerate(answer):
            logprobs = torch.log_softmax(processed(logits_TV[t], prompt, answer[:t], sampling), -1)
            drawable = logprobs[logprobs.isfinite()]
            total = total + logprobs[token] - (drawable * drawable.exp()).sum()
    total.backward()
    for name, p in exact.parameters().items():
        if p.grad is not None:
            torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-3 * float(p.grad.abs().max()))


def test_what_was_seen_is_the_same_in_drawing_and_in_training() -> None:
    sampling = Sampling(repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25)
    prompt, answer = [3, 3, 5, 7], [5, 9, 9, 3, 9]
    past = Past([prompt, [1]], sampling, 12, torch.device("cpu"))
    for token in answer:
        past.add(torch.tensor([token, 1]))
    logits = torch.full((2, V), 2.0)
    ours = past.reshaped(logits, torch.tensor([5, 5]), ENDS)
    expected = {3: 1 - 0.75, 5: 1 - 0.75, 7: 1.0, 9: 1 - 1.75}
    assert {token: float(ours[0, token]) for token in (3, 5, 7, 9)} == expected
    assert (ours[0] != 2).sum() == 4
    assert logits.eq(2).all(), "the logits themselves are as before"
    past.begin(torch.tensor([0]), [[8]])
    assert past.reshaped(logits, torch.tensor([0, 5]), ENDS)[0].ne(2).nonzero()[:, 0].tolist() == [8], "the place forgets the text before"
    batch = rollout([prompt], [Completion(
        token_ids=torch.tensor([*answer, 11]), finish_reason="stop", logprobs=torch.zeros(6), versions=torch.zeros(6, dtype=torch.long),
    )], sampling)  # fmt: skip
    seen = seen_before(batch, torch.tensor([0]), torch.tensor([5]), sampling, V)
    torch.testing.assert_close(penalised(logits[:1], sampling, seen, torch.tensor([False]), ENDS)[0], ours[0])


@pytest.mark.parametrize("slots", [1, 3, 7])
def test_answers_do_not_depend_on_what_is_drawn_beside_them(slots: int) -> None:
    role = role_of("gpt2")
    for ours, theirs in zip(drawn(role, ALL, slots=slots), drawn(role, ALL)):
        assert ours.token_ids.tolist() == theirs.token_ids.tolist()


def test_a_row_of_several_answers_has_no_silent_count() -> None:
    role, sampling = role_of("gpt2"), Sampling(presence_penalty=1.0)
    batch = rollout(PROMPTS, drawn(role, sampling), sampling)
    holed = batch.mask_BT.clone()
    holed[0, 1] = False
    with pytest.raises(PluginError, match="count the tokens of one answer"):
        statistics(role, replace(batch, mask_BT=holed), ("logprobs",), 100)
    whole = replace(batch, behaviour=replace(batch.behaviour, sampling=Sampling(repetition_penalty=1.2)))
    assert statistics(role, replace(whole, mask_BT=holed), ("logprobs",), 100).logprobs_BT[0, 1] == 0
    short = replace(batch, behaviour=replace(batch.behaviour, sampling=Sampling(min_new_tokens=2), ends=()))
    with pytest.raises(PluginError, match="which tokens end an answer"):
        statistics(role, short, ("logprobs",), 100)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"repetition_penalty": -1.0}, "repetition_penalty is -1"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty is nan"),
        ({"presence_penalty": 2.5}, "presence_penalty is 2.5"),
        ({"frequency_penalty": float("inf")}, "frequency_penalty is inf"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1"),
        ({"stop_strings": ("a", "")}, "a string of stop_strings is empty"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        Sampling(**options)


# ------------------------------------------------------------------------------------------------- ends


def test_an_answer_may_end_with_any_of_several_tokens_but_not_before_the_minimum() -> None:
    role = role_of("gpt2")
    found = drawn(role, Sampling(temperature=3.0), max_new_tokens=60)
    assert {int(one.token_ids[-1]) for one in found if one.finish_reason == "stop"} == set(ENDS)
    late = drawn(role, Sampling(temperature=3.0, min_new_tokens=59), max_new_tokens=60)
    assert all(len(one.token_ids) == 60 and not set(one.token_ids[:59].tolist()) & set(ENDS) for one in late)
    never = drawn(role, Sampling(temperature=3.0, min_new_tokens=60), max_new_tokens=60)
    assert {one.finish_reason for one in never} == {"length"}


def test_an_end_at_once_is_an_answer_of_one_token() -> None:
    role = role_of("gpt2")
    first = {int(one.token_ids[0]) for one in drawn(role, Sampling(), max_new_tokens=1)}
    found = drawn(role, Sampling(), ends=tuple(first))
    assert all(len(one.token_ids) == 1 and one.finish_reason == "stop" for one in found)


def test_ids_that_no_token_has_stay_out_whatever_the_penalties() -> None:
    role = role_of("gpt2")
    role.knows(V - 10, [3])
    found = drawn(role, Sampling(temperature=50.0, repetition_penalty=0.1, frequency_penalty=-2.0), PROMPTS)
    assert all(token < V - 10 and token != 3 for one in found for token in one.token_ids.tolist())


# ------------------------------------------------------------------------------------------------- strings

def pieces(texts: Sequence[bytes]) -> Callable[[Sequence[int]], str]:
    return lambda ids: b"".join(texts[i] for i in ids).decode(errors="replace")


def first_by_hand(text: Callable[[Sequence[int]], str], ids: Sequence[int], sampling: Sampling) -> int | None:
    """By definition: the first token after which the text has a string that was not complete within the minimum."""
    least = sampling.min_new_tokens
    for n in range(least + 1, len(ids) + 1):
        for string in sampling.stop_strings:
            count = sum(text(ids[:n]).startswith(string, at) for at in range(len(text(ids[:n]))))
            early = sum(text(ids[:least]).startswith(string, at) for at in range(len(text(ids[:least]))))
            if count > early:
                return n
    return None


@pytest.mark.parametrize("least", [0, 1, 5])
@pytest.mark.parametrize("every", [1, 3])
def test_a_string_is_found_wherever_its_pieces_lie(least: int, every: int) -> None:
    e, face = "é".encode(), "😀".encode()
    texts = [b"a", b"ab", b"b", b"c", b"abc", b"", e[:1], e[1:], face[:2], face[2:], b" ", b"ca", b"xxxxabxxxx"]
    text, ended = pieces(texts), 0
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(len(texts), (14,), generator=generator).tolist()
        sampling = Sampling(stop_strings=("abca", "é", "😀", "bb ")[seed % 4 :][:2], min_new_tokens=least)
        stops, found = Stops(sampling, text), None
        for known in range(0, len(ids), every):
            found = stops.found(ids[: known + every], known)
            if found is not None:
                break
        assert found == first_by_hand(text, ids, sampling), (ids, sampling)
        ended += found is not None
    assert 30 < ended < 290


def test_tokens_without_a_text_do_not_hide_a_string() -> None:
    text = pieces([b"st", b"op", b""])
    ids = [0, *[2] * 50, 1]
    assert Stops(Sampling(stop_strings="stop"), text).found(ids, len(ids) - 1) == len(ids)


def test_an_answer_ends_with_the_token_that_completes_a_string_and_keeps_it() -> None:
    role = role_of("gpt2")
    text = pieces([b"<%d>" % i for i in range(V)])
    free = drawn(role, Sampling(), text=text)
    stop = text(free[1].token_ids[2:5].tolist())[1:-1]  # begins and ends within tokens
    found = drawn(role, Sampling(stop_strings=(stop,)), text=text)
    assert found[1].token_ids.tolist() == free[1].token_ids[:5].tolist()
    assert found[1].finish_reason == "stop"
    for ours, theirs in zip(found, free):
        shown = text(ours.token_ids.tolist())
        assert ours.token_ids.tolist() == theirs.token_ids[: len(ours.token_ids)].tolist(), "nothing else changes"
        assert (stop in shown) == (len(ours.token_ids) < len(theirs.token_ids) or shown.endswith(stop + ">"))
    join(found, Asked(Sampling(stop_strings=(stop,)), 24, ENDS, V, 0), "the engine")
