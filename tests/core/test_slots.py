"""How rows share a batch while they are decoded: places in a cache, equal prompts, waiting prompts, rows that end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers as tf

from hookline import Sampling
from hookline.contract.engine import Completion
from hookline.inference.decode import decode
from hookline.models.causal import Causal
from hookline.models.decoding import Alone, Padded, Whole, fastest
from hookline.models.reading import CausalDecoding
from hookline.models.role import Role
from hookline.models.slots import Slots

V = 60
TEXT = {
    "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 160, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}
MODELS: dict[str, tuple[Any, type[CausalDecoding]]] = {
    "gpt2": (tf.GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=2, n_positions=160, **SPECIAL), Slots),
    "llama": (tf.LlamaConfig(**TEXT), Slots),
    "qwen3": (tf.Qwen3Config(**TEXT, head_dim=8), Slots),
    "opt": (tf.OPTConfig(**{**TEXT, "ffn_dim": 32, "word_embed_proj_dim": 32}), Slots),
    "mixtral": (tf.MixtralConfig(**TEXT, num_local_experts=2), Slots),
    "mistral, windows": (tf.MistralConfig(**TEXT, sliding_window=6), Padded),
    "gpt-neo, windows": (
        tf.GPTNeoConfig(vocab_size=V, hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]],
                        window_size=6, max_position_embeddings=160, **SPECIAL), Padded),
    "bloom, alibi": (tf.BloomConfig(vocab_size=V, hidden_size=32, n_layer=2, n_head=2, **SPECIAL), Padded),
    "mamba": (tf.MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=4, **SPECIAL), Padded),
    "mamba2": (tf.Mamba2Config(vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=8, head_dim=16, num_heads=4,
                               n_groups=1, chunk_size=8, **SPECIAL), Padded),
    "rwkv": (tf.RwkvConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, context_length=160, **SPECIAL), Alone),
}  # fmt: skip
PROMPTS = [[(7 * i + 3 * j) % V for j in range(n)] for i, n in enumerate((3, 9, 1, 40, 9, 2, 5, 17, 3, 12))]
ENDS = (11, 12, 13, 14, 15)


def role_of(name: str) -> Role:
    family = Causal(Causal.Config())
    family.instance = "causal"
    torch.manual_seed(0)
    net = tf.AutoModelForCausalLM.from_config(MODELS[name][0]).eval()
    role = Role("policy", net, family)
    for parameter in role.parameters().values():
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    return role


def drawn(role: Role, prompts: Sequence[Sequence[int]] = PROMPTS, **options: Any) -> list[Completion]:
    given: dict[str, Any] = {"sampling": Sampling(), "max_new_tokens": 50, "ends": ENDS, "seed": 5} | options
    n = len(prompts)
    return decode({"policy": role}, prompts, torch.arange(n) * 7, torch.arange(n) % 4 == 3, **given)


def same(ours: Sequence[Completion], theirs: Sequence[Completion]) -> None:
    assert [one.token_ids.tolist() for one in ours] == [one.token_ids.tolist() for one in theirs]
    for a, b in zip(ours, theirs):
        assert a.finish_reason == b.finish_reason
        assert a.logprobs is not None
        assert b.logprobs is not None
        torch.testing.assert_close(a.logprobs, b.logprobs, rtol=1e-4, atol=1e-4)
        if a.kept_ids is not None and b.kept_ids is not None:
            assert torch.equal(a.kept_ids.ids, b.kept_ids.ids)
            assert torch.equal(a.kept_ids.offsets, b.kept_ids.offsets)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_is_read_in_the_fastest_way_that_gives_what_it_gives_for_whole_texts(name: str) -> None:
    role = role_of(name)
    assert fastest(role.net, role.context, V, role.head) is MODELS[name][1]
    [one] = drawn(role, PROMPTS[3:4], ends=(V - 1,), max_new_tokens=100)
    ids = torch.tensor([PROMPTS[3] + one.token_ids.tolist()])
    with torch.no_grad():
        whole = torch.log_softmax(role.net(ids).logits[0, len(PROMPTS[3]) - 1 : -1].double(), -1)
    expected = whole.gather(-1, one.token_ids[:, None])[:, 0]
    assert one.logprobs is not None
    torch.testing.assert_close(one.logprobs.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=9, top_p=0.9)], ids=["plain", "truncated"])
def test_answers_are_the_same_whatever_waits_beside_them(name: str, sampling: Sampling) -> None:
    role = role_of(name)
    together = drawn(role, sampling=sampling)
    assert len({len(one.token_ids) for one in together}) > 3, "some rows end early, and others take their places"
    for slots in (1, 3, 7):
        same(drawn(role, sampling=sampling, slots=slots), together)


@pytest.mark.parametrize("name", ["gpt2", "mistral, windows", "mamba", "rwkv"])
def test_answers_end_at_once_at_the_first_of_several_tokens_or_never(name: str) -> None:
    role, most = role_of(name), 12
    never = drawn(role, ends=(V - 1,), max_new_tokens=most)
    for slots in (3, 256):
        at_once = drawn(role, ends=tuple(range(V)), max_new_tokens=most, slots=slots)
        assert [(one.token_ids.tolist(), one.finish_reason) for one in at_once] == [
            (one.token_ids[:1].tolist(), "stop") for one in never
        ]
        for one, whole in zip(drawn(role, max_new_tokens=most, slots=slots), never):
            ids = whole.token_ids.tolist()
            first = next((at for at, token in enumerate(ids) if token in {*ENDS, V - 1}), None)
            if first is None or ids[first] in ENDS:
                assert one.token_ids.tolist() == ids[: None if first is None else first + 1]
                assert one.finish_reason == ("length" if first is None else "stop")


def test_ids_that_no_token_has_are_neither_drawn_nor_counted() -> None:
    """A vocabulary that was padded for speed, and has a gap; the end is one of those ids, so no answer ends."""
    role = role_of("gpt2")
    role.knows(V - 9, [3, 7])
    unknown = {3, 7, *range(V - 9, V)}
    for sampling in (Sampling(temperature=3.0), Sampling(temperature=3.0, top_p=0.999)):
        found = drawn(role, ends=(V - 1,), sampling=sampling)
        assert {(len(one.token_ids), one.finish_reason) for one in found} == {(50, "length")}
        assert not unknown & {token for one in found for token in one.token_ids.tolist()}
        assert all(one.kept_ids is None or not unknown & set(one.kept_ids.ids.tolist()) for one in found)
    prompt, one = PROMPTS[1], drawn(role, ends=(V - 1,))[1]
    with torch.no_grad():
        logits = role.net(torch.tensor([[*prompt, *one.token_ids.tolist()]])).logits[0, len(prompt) - 1 : -1].double()
    logits[:, sorted(unknown)] = -torch.inf
    expected = torch.log_softmax(logits, -1).gather(-1, one.token_ids[:, None])[:, 0]
    assert one.logprobs is not None
    torch.testing.assert_close(one.logprobs.double(), expected, rtol=1e-3, atol=1e-3)


def test_equal_prompts_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    role, read = role_of("gpt2"), []
    real = Role.prefill

    def watched(self: Role, prompts: Sequence[Sequence[int]], filler: int) -> Any:
        read.append(len(prompts))
        return real(self, prompts, filler)

    monkeypatch.setattr(Role, "prefill", watched)
    group = [PROMPTS[0]] * 4 + [PROMPTS[1]] * 4
    found = drawn(role, group)
    assert read == [2]
    assert len({tuple(one.token_ids.tolist()) for one in found}) > 4, "each row has its own random numbers"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_place_given_to_another_text_forgets_the_one_before(name: str) -> None:
    role = role_of(name)
    with torch.no_grad():
        state = role.prefill([PROMPTS[3], PROMPTS[1], PROMPTS[0]], 0)
        assert isinstance(state, Slots)
        assert state.replaceable
        role.step(state, torch.tensor([1, 2, 3]))
        state.replace(torch.tensor([0, 2]), role.prefill([PROMPTS[2], PROMPTS[7]], 0))  # type: ignore[arg-type]
        after = role.step(state, torch.tensor([4, 5, 6]))
        texts = [[*PROMPTS[2], 4], [*PROMPTS[1], 2, 5], [*PROMPTS[7], 6]]
        for row, text in enumerate(texts):
            torch.testing.assert_close(after[row], Whole(role.net, [text], 0, role.head).logits_BV[0], rtol=1e-4, atol=1e-3)


def test_rows_that_end_leave_and_the_rest_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    role, sizes = role_of("gpt2"), []
    real = Role.step

    def watched(self: Role, state: Any, ids: torch.Tensor) -> torch.Tensor:
        sizes.append(len(ids))
        return real(self, state, ids)

    monkeypatch.setattr(Role, "step", watched)
    found = drawn(role, max_new_tokens=60)
    needed = sum(len(one.token_ids) - 1 for one in found)
    assert sizes[0] == len(PROMPTS)
    assert sizes[-1] < len(PROMPTS) / 2
    assert sum(sizes) < 1.5 * needed + len(PROMPTS), "rows that have ended cost at most one more step of all rows each time"


def test_no_row_goes_beyond_the_context_while_others_wait() -> None:
    role = role_of("gpt2")
    prompts = [PROMPTS[3] + PROMPTS[3], *PROMPTS, *PROMPTS]  # the first has just enough room
    found = drawn(role, prompts, max_new_tokens=80, ends=(V - 1,), slots=2)
    assert [len(one.token_ids) for one in found] == [80 if one.finish_reason == "length" else len(one.token_ids) for one in found]
    same(found[:1], drawn(role, prompts[:1], max_new_tokens=80, ends=(V - 1,)))


def test_what_combines_sees_all_rows_in_their_order_however_many_there_are() -> None:
    role, seen = role_of("gpt2"), []

    def combine(said: Any) -> torch.Tensor:
        seen.append(len(said["policy"].logits_BV))
        logits: torch.Tensor = said["policy"].logits_BV
        return logits

    drawn(role, combine=combine, max_new_tokens=1, slots=3)
    assert seen == [len(PROMPTS)]


def test_a_cache_is_as_wide_as_its_rows_however_long_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    role, columns = role_of("gpt2"), []
    real = Slots.append

    def watched(self: Slots, net: Any, ids_B: torch.Tensor) -> None:
        real(self, net, ids_B)
        columns.append((self.at.columns, self.mask_BS.shape[1]))

    monkeypatch.setattr(Slots, "append", watched)
    drawn(role, [PROMPTS[0], PROMPTS[1]] * 60, max_new_tokens=20, slots=4)
    assert len(columns) > 120, "many steps in one batch"
    assert max(shown for shown, _ in columns) <= 64
    assert max(room for _, room in columns) <= 96
