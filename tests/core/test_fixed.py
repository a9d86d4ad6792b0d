"""The exact mode: a sample is the same to the last bit, whatever is drawn beside it; and how rarely samples differ otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import transformers as tf

from hookline import ExperimentError, Sampling
from hookline.contract.engine import Completion
from hookline.inference.decode import decode
from hookline.inference.fixed import Fixed
from hookline.inference.local import Local
from hookline.loop.loop import PhaseLoop
from hookline.models.causal import Causal
from hookline.models.role import Role

Lab = Callable[..., PhaseLoop]

V = 60
TEXT = {
    "vocab_size": V, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 40, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}
MODELS: dict[str, Any] = {
    "gpt2": tf.GPT2Config(vocab_size=V, n_embd=48, n_layer=2, n_head=2, n_positions=64, **SPECIAL),
    "llama": tf.LlamaConfig(**TEXT),
    "windows": tf.MistralConfig(**TEXT, sliding_window=6),
    "mamba": tf.MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=4, **SPECIAL),
    "rwkv": tf.RwkvConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, context_length=64, **SPECIAL),
    "experts": tf.MixtralConfig(**TEXT, num_local_experts=4),
}
PROMPTS = [[(7 * i + 3 * j) % V for j in range(n)] for i, n in enumerate((3, 9, 1, 15, 9, 2, 5, 12, 3, 7))]
ENDS, NEW = (11, 12, 13, 14), 12
EVERYTHING = Sampling(temperature=1.2, top_p=0.95, repetition_penalty=1.1, frequency_penalty=0.1, min_new_tokens=2)


def role_of(name: str, dtype: torch.dtype = torch.float32) -> Role:
    family = Causal(Causal.Config())
    family.instance = "causal"
    torch.manual_seed(0)
    role = Role("policy", tf.AutoModelForCausalLM.from_config(MODELS[name]).eval(), family)
    for parameter in role.parameters().values():
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    role.net.to(dtype)
    return role


def drawn(role: Role, order: Sequence[int], fixed: Fixed | None, sampling: Sampling = EVERYTHING) -> dict[int, Completion]:
    """Samples by number; sample i has prompt i of PROMPTS, again and again."""
    prompts = [PROMPTS[i % len(PROMPTS)] for i in order]
    found = decode(
        {"policy": role}, prompts, torch.tensor(order), torch.tensor(order) % 5 == 4, sampling=sampling, max_new_tokens=NEW, ends=ENDS,
        seed=3, fixed=fixed,
    )  # fmt: skip
    return dict(zip(order, found))


def same_bits(a: Completion, b: Completion) -> bool:
    assert a.logprobs is not None
    assert b.logprobs is not None
    kept = a.kept_ids is None or b.kept_ids is None or torch.equal(a.kept_ids.ids, b.kept_ids.ids)
    return torch.equal(a.token_ids, b.token_ids) and torch.equal(a.logprobs, b.logprobs) and kept


@pytest.mark.parametrize("name", ["gpt2", "llama", "windows", "mamba", "rwkv"])
def test_a_sample_has_the_same_bits_alone_and_among_others_in_any_order(name: str) -> None:
    role, fixed = role_of(name), Fixed(rows=8, positions=32)
    fixed.check(role, 0)
    every = drawn(role, range(20), fixed)  # more than there are places
    for order in ([7], [13, 2], list(range(19, -1, -1))):
        for sample, one in drawn(role, order, fixed).items():
            assert same_bits(one, every[sample]), (order, sample)
    assert len({len(one.token_ids) for one in every.values()}) > 3, "some rows end early, and others take their places"
    plain = drawn(role, range(20), None)
    assert sum(torch.equal(plain[i].token_ids, every[i].token_ids) for i in range(20)) >= 19, "it is the same distribution"


def test_bits_of_low_precision_are_kept_too() -> None:
    role, fixed = role_of("llama", torch.bfloat16), Fixed(rows=8, positions=32)
    fixed.check(role, 0)
    every = drawn(role, range(12), fixed)
    assert all(same_bits(one, every[sample]) for order in ([5], [11, 1, 9]) for sample, one in drawn(role, order, fixed).items())


def test_tokens_of_the_normal_mode_rarely_differ(record_property: Callable[[str, object], None]) -> None:
    """A batch of another size may choose another kernel; a token then differs where two candidates are within rounding."""
    role, differ, bits, tokens = role_of("llama"), 0, 0, 0
    together = drawn(role, range(200), None)
    for start in range(0, 200, 8):
        for sample, one in drawn(role, range(start, start + 8), None).items():
            other = together[sample]
            differ += not torch.equal(one.token_ids, other.token_ids)
            bits += not same_bits(one, other)
            tokens += len(one.token_ids)
    print(f"normal mode: {differ} of 200 answers differ in a token, {bits} in a bit, {tokens} tokens")
    record_property("answers that differ in a token", differ)
    assert differ <= 2


def test_a_network_that_mixes_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = Fixed(rows=8, positions=32)
    with pytest.raises(ExperimentError, match="has routed experts"):
        fixed.check(role_of("experts"), 0)
    role, step = role_of("gpt2"), Role.step
    fixed.check(role, 0)

    def mixed(self: Role, state: Any, ids_B: torch.Tensor) -> torch.Tensor:
        logits_BV = step(self, state, ids_B)
        return logits_BV + 1e-6 * logits_BV.mean()

    monkeypatch.setattr(Role, "step", mixed)
    with pytest.raises(ExperimentError, match="computes a text in another way"):
        fixed.check(role, 0)


def test_what_does_not_fit_is_refused() -> None:
    role = role_of("gpt2")
    with pytest.raises(ExperimentError, match="a prompt of 15 tokens and 12 new ones make 27, but the exact mode has 26 positions"):
        drawn(role, range(10), Fixed(rows=8, positions=26))
    with pytest.raises(ExperimentError, match="no limit of positions"):
        Fixed(rows=16).room(role_of("mamba"), 1, 1)
    assert len(drawn(role, range(10), Fixed(rows=8, positions=27))) == 10, "exactly enough"


def test_the_engine_says_that_it_is_exact_and_draws_so(lab: Lab) -> None:
    rollout = {"use": "generate", "prompts": "builtin:keywords/train", "rows": 3, "samples_per_prompt": 2, "max_new_tokens": 6}
    loop = lab(engine={"use": "local", "exact": True, "slots": 8}, rollout=rollout, update={"use": "sft", "lr": 1e-3})
    assert "exact" in loop.phase.planned.engine.gives
    batch = loop.hooks.rollout(loop.ctx)
    assert batch.behaviour is not None
    for row in (0, 4):
        alone = loop.ctx.draw([batch.prompt_ids(row)], batch.sample_B[row : row + 1], sampling_=Sampling(), max_new_tokens=6)
        n = int(alone.length_B[0])
        assert alone.token_ids_BT[0, :n].tolist() == batch.response_ids(row)
        assert torch.equal(alone.behaviour.logprobs_BT[0, :n], batch.behaviour.logprobs_BT[row, :n])
    assert Local(Local.Config(exact=True)).gives == {"exact", "kept-ids", "penalties", "score", "stop-strings"}
    assert asyncio.iscoroutinefunction(Local.draw)
