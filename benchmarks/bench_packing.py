"""Packed rows beside padded ones: forward and backward of the same rows, whose lengths have a long tail.

    make bench ARGS="benchmarks/bench_packing.py"

The lengths are log-normal: half of the rows have at most 60 tokens, a few have hundreds. `in order` pads 16 rows at a time
to the longest of them, as a data loader does. `padded` is Hookline without `packing`: rows sorted by length, parts that end
where rows become shorter. `packed` is `packing: true`. Rows that a loss compares stay in one part: pairs for DPO, groups for
GRPO. Tokens are those of the rows, without padding, per second of one thread; the three are taken in turns in one process, and
the best turn of each counts. Each first gives the same gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hookline import Batch
from hookline.models.load import family_of
from hookline.models.role import Role
from hookline.training.packing import pack
from hookline.training.statistics import forward, split_by_tokens

MICRO, VOCABULARY, MEDIAN, LONGEST, ROUNDS = 16384, 4096, 60, 1024, 5
UNITS = {"rows": 1, "pairs": 2, "groups of 8": 8}


def rows(count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    length_B = (torch.randn(count, generator=generator).exp() * MEDIAN).round().clamp(4, LONGEST).long()
    prompt_B = (length_B // 4).clamp(min=1)
    T = int((length_B - prompt_B).max())
    return Batch(
        prompt_ids_BP=torch.randint(VOCABULARY, (count, int(prompt_B.max())), generator=generator),
        prompt_length_B=prompt_B,
        token_ids_BT=torch.randint(VOCABULARY, (count, T), generator=generator),
        length_B=length_B - prompt_B,
        mask_BT=torch.arange(T) < (length_B - prompt_B)[:, None],
        group_B=torch.arange(count),
        sample_B=torch.arange(count),
        records=({},) * count,
        decode=lambda ids: "",
    )


def role_of(width: int, packing: bool) -> Role:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=width // 32,
        max_position_embeddings=LONGEST,
    )
    role = Role("policy", LlamaForCausalLM(config), family_of(None))
    pack([role], packing, print)
    return role


def work(role: Role, batch: Batch, parts: Sequence[Sequence[int]]) -> Callable[[], Tensor]:
    """One pass over the rows, as the trainer takes it; returns the gradient of the embedding."""

    def step() -> Tensor:
        role.net.zero_grad()
        for part in parts:
            (-forward(role, batch.rows(part), ("logprobs",))["logprobs"].sum() / len(batch)).backward()  # type: ignore[no-untyped-call]
        grad = role.net.get_input_embeddings().weight.grad
        assert grad is not None
        return grad.clone()

    return step


def computed(role: Role, batch: Batch, parts: Sequence[Sequence[int]]) -> int:
    """Tokens that the network reads, with padding."""
    seen = 0

    def count(module: Any, given: Any, ids: Any) -> None:
        seen_now = given[0].numel() if given else ids["input"].numel()
        nonlocal seen
        seen += seen_now

    handle = role.net.get_input_embeddings().register_forward_pre_hook(count, with_kwargs=True)
    with torch.no_grad():
        for part in parts:
            forward(role, batch.rows(part), ("logprobs",))
    handle.remove()
    return seen


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("width", [128, 384], ids="width={}".format)
@pytest.mark.parametrize("count", [32, 96], ids="rows={}".format)
def bench_packing(count: int, width: int, unit: str, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batch, size = rows(count), UNITS[unit]
    units = [list(range(at, at + size)) for at in range(0, count, size)]
    padded, packed = role_of(width, False), role_of(width, True)
    plans = {
        "in order": (padded, [list(range(at, min(at + 16, count))) for at in range(0, count, 16)]),
        "padded": (padded, split_by_tokens(batch, MICRO, units)),
        "packed": (packed, split_by_tokens(batch, MICRO, units, packed.packing)),
    }
    calls = {name: work(role, batch, parts) for name, (role, parts) in plans.items()}
    grads = {name: call() for name, call in calls.items()}
    for name in plans:
        worst = float((grads[name] - grads["padded"]).abs().max())
        assert worst <= 1e-5 * float(grads["padded"].abs().max()), name
    best = dict.fromkeys(plans, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.process_time()
            call()
            best[name] = min(best[name], time.process_time() - began)
    torch.set_num_threads(threads)
    tokens = int((batch.prompt_length_B + batch.length_B).sum())
    said = [
        f"{name} {tokens / best[name]:,.0f} tokens/s ({best['padded'] / best[name]:.2f}x, {len(parts)} parts, "
        f"{computed(role, batch, parts) / tokens:.2f} computed)"
        for name, (role, parts) in plans.items()
    ]
    with capsys.disabled():
        print(f"\n{count} rows, {tokens} tokens, width {width}, {unit}: " + "; ".join(said))
