"""Prompts that rows share are read once, in training too: figures and gradients are those of each row alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

from core.test_packing import PACKED, PADDED, TEXT, V, role_of
from hookline import Batch
from hookline.models.load import one_operation
from hookline.models.prompts import Prompts
from hookline.models.role import Role
from hookline.training.statistics import forward

ONCE = ("gpt2", "llama", "qwen3")


def batch_of(answers: tuple[int, ...] = (7, 1, 12, 20, 3, 3, 9, 11, 2, 8, 20, 14), rows: int = 4) -> Batch:
    """Rows whose prompts of 9, 4 and 20 tokens each begin several; the first two prompts begin alike."""
    generator = torch.Generator().manual_seed(1)

    def ids(count: int) -> list[int]:
        return torch.randint(1, V, (count,), generator=generator).tolist()

    first = ids(9)
    prompts = [prompt for prompt in (first, first[:4], ids(20)) for _ in range(rows)]
    return Batch.of_ids(prompts[: len(answers)], [ids(count) for count in answers])


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The shapes [rows, tokens] that networks were given."""
    from hookline.models import causal, prompts

    seen: list[tuple[int, int]] = []
    for module in (causal, prompts):
        plain = module.trunk

        def trunk(net: Any, plain: Any = plain, **given: Any) -> Any:
            seen.append(tuple(given["input_ids"].shape))
            return plain(net, **given)

        monkeypatch.setattr(module, "trunk", trunk)
    return seen


def figures(role: Role, batch: Batch, want: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The figures, and the gradient of a sum in which each has another weight."""
    found = forward(role, batch, want)
    total = sum((value * torch.linspace(1, 2, value.numel()).view_as(value)).sum() for value in found.values())
    assert isinstance(total, Tensor)
    total.backward()
    gradients = {name: p.grad.clone() for name, p in role.parameters().items() if p.grad is not None}
    for p in role.parameters().values():
        p.grad = None
    return {name: value.detach() for name, value in found.items()}, gradients


def apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - one).abs().max() / one.abs().max().clamp(min=1e-6)) for name, one in expected.items())


@pytest.mark.parametrize("want", [("logprobs",), ("logprobs", "value", "score")], ids=["before", "both-sides"])
@pytest.mark.parametrize("name", ONCE)
def test_figures_and_gradients_are_those_of_rows_read_alone(
    name: str, want: tuple[str, ...], widths: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    role, batch = role_of(PACKED[name]), batch_of()
    once = figures(role, batch, want)
    assert widths[-2:] == [(3, 20), (12, 20 - (len(want) == 1))], "three prompts once, then the answers"
    monkeypatch.setattr(Prompts, "pays", lambda *_: False)
    alone = figures(role, batch, want)
    assert apart(once[0], alone[0]) < 1e-5
    assert apart(once[1], alone[1]) < 1e-4


def test_answers_of_one_token_need_only_their_prompts(widths: list[tuple[int, int]]) -> None:
    role, batch = role_of(PACKED["gpt2"]), batch_of((1,) * 12)
    forward(role, batch, ("logprobs",))
    widths.clear()
    forward(role, batch, ("logprobs",))
    assert widths == [(3, 20)]


@pytest.mark.parametrize("name", sorted((PACKED.keys() | PADDED.keys()) - set(ONCE)))
def test_networks_with_windows_or_states_read_each_row(name: str, widths: list[tuple[int, int]]) -> None:
    role, batch = role_of((PACKED | PADDED)[name]), batch_of()
    forward(role, batch, ("score",))
    widths.clear()
    forward(role, batch, ("score",))
    assert widths == [(12, 40)]


def test_a_network_whose_positions_begin_again_is_found_out(widths: list[tuple[int, int]]) -> None:
    role, batch = role_of(PACKED["llama"]), batch_of()
    inner = role.net.model.forward

    def wrong(*given: Any, position_ids: Tensor | None = None, **more: Any) -> Any:
        return inner(*given, position_ids=None if position_ids is None else position_ids.clamp(max=3), **more)

    role.net.model.forward = wrong
    forward(role, batch, ("score",))
    widths.clear()
    forward(role, batch, ("score",))
    assert widths == [(12, 40)]


def test_what_it_costs_decides(widths: list[tuple[int, int]]) -> None:
    """An answer's tokens read the prompt through a mask, which hides nothing from the arithmetic."""
    role = role_of(tf.LlamaConfig(**TEXT | {"max_position_embeddings": 1200}))
    prompt = list(range(1, 5))
    long = Batch.of_ids([prompt] * 2, [[7] * 1100] * 2)
    different = Batch.of_ids([prompt, prompt[1:], prompt[2:]], [[7] * 20] * 3)
    for batch, shape in ((long, (2, 1103)), (different, (3, 23))):
        forward(role, batch, ("logprobs",))
        assert widths[-1] == shape


def test_recomputation_leaves_no_keys_to_share(widths: list[tuple[int, int]]) -> None:
    role, batch = role_of(PACKED["llama"]), batch_of()
    expected = figures(role, batch, ("logprobs",))
    role.net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    role.recompute = True
    widths.clear()
    found = figures(role, batch, ("logprobs",))
    assert widths[0] == (12, 39)
    assert apart(found[0], expected[0]) < 1e-5
    assert apart(found[1], expected[1]) < 1e-4


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_accurate"])
def test_an_activation_is_one_operation_with_the_same_numbers(name: str) -> None:
    config = tf.GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=2, n_positions=64, activation_function=name)
    torch.manual_seed(0)
    net = tf.GPT2LMHeadModel(config).double().eval()
    ids_BL = torch.randint(V, (3, 20))
    expected = net(ids_BL).logits
    one_operation(net)
    assert all(isinstance(block.mlp.act, nn.GELU) for block in net.transformer.h)
    torch.testing.assert_close(net(ids_BL).logits, expected, rtol=1e-10, atol=1e-10)


def test_other_activations_stay() -> None:
    torch.manual_seed(0)
    net = tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT))
    kind = type(net.model.layers[0].mlp.act_fn)
    one_operation(net)
    assert type(net.model.layers[0].mlp.act_fn) is kind
