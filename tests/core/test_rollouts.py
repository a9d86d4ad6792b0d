"""What rollouts promise about the rows they bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hookline import concat, pairs
from hookline.loop.loop import PhaseLoop
from hookline.loop.scope import Evaluation

Lab = Callable[..., PhaseLoop]


def rollout_of(kind: str, corpus: Path) -> tuple[dict[str, Any], str]:
    return {
        "text": ({"use": "text", "path": str(corpus / "texts.jsonl"), "rows": 3, "length": 8}, "causal-lm"),
        "dataset": ({"use": "dataset", "path": str(corpus / "prompts.jsonl"), "rows": 3}, "sft"),
        "preferences": ({"use": "preferences", "path": str(corpus / "pairs.jsonl"), "rows": 3}, "dpo"),
        "generate": (
            {
                "use": "generate",
                "prompts": str(corpus / "prompts.jsonl"),
                "rows": 3,
                "samples_per_prompt": 2,
                "max_new_tokens": 4,
            },
            "sft",
        ),
    }[kind]


@pytest.mark.parametrize("kind", ["text", "dataset", "preferences", "generate"])
def test_samples_and_groups_are_numbered_once_in_a_run(lab: Lab, corpus: Path, kind: str) -> None:
    """Steps and evaluations join batches; a number used twice would merge what has nothing to do with each other."""
    rollout, update = rollout_of(kind, corpus)
    loop = lab(rollout=rollout, update=update)
    batches = []
    for _ in range(3):
        batches.append(loop.hooks.rollout(loop.ctx))
        loop.phase.scope.step += 1
    whole = concat(batches)
    assert len(set(whole.sample_B.tolist())) == len(whole)
    groups = [set(batch.group_B.tolist()) for batch in batches]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]


def test_an_epoch_shows_every_row_once_and_the_next_in_another_order(lab: Lab, corpus: Path) -> None:
    loop = lab(rollout={"use": "dataset", "path": str(corpus / "prompts.jsonl"), "rows": 4}, update="sft", steps=40)
    total = len((corpus / "prompts.jsonl").read_text().splitlines())
    seen: list[str] = []
    while len(seen) < 2 * total:
        batch = loop.hooks.rollout(loop.ctx)
        seen += [record["prompt"] for record in batch.records]
        loop.phase.scope.step += 1
    assert len(set(seen[:total])) == total
    assert set(seen[:total]) == set(seen[total : 2 * total])
    assert seen[:total] != seen[total : 2 * total]


def test_comparisons_are_pairs_of_one_group(lab: Lab, corpus: Path) -> None:
    rollout, update = rollout_of("preferences", corpus)
    loop = lab(rollout=rollout, update=update)
    scored = loop.hooks.score(loop.ctx, loop.hooks.rollout(loop.ctx))
    chosen, rejected = pairs(scored)
    assert len(chosen) == 3
    assert torch.equal(scored.group_B[chosen], scored.group_B[rejected])
    assert all(scored.response_text(int(i)).startswith("To ") for i in chosen)


def test_text_predicts_every_token_but_the_first_once(lab: Lab, corpus: Path) -> None:
    rollout, update = rollout_of("text", corpus)
    loop = lab(rollout={**rollout, "rows": 1000}, update=update)
    whole = loop.ctx.scoped(Evaluation(loop.phase.scope, "whole"))  # file order, each block once
    batch = loop.hooks.rollout(whole)
    tokens = [t for row in range(len(batch)) for t in batch.response_ids(row)]
    component: Any = loop.hooks.components["rollout/text"]
    assert tokens == component.stream[1:].tolist()


def test_a_response_shows_its_special_tokens_but_not_the_one_that_ends_it(lab: Lab, corpus: Path) -> None:
    rollout, update = rollout_of("text", corpus)
    loop = lab(rollout=rollout, update=update)
    tokenizer, batch = loop.session.tokenizer, loop.hooks.rollout(loop.ctx).rows([0, 0, 0, 0])
    mark, end, word = tokenizer.separator, tokenizer.eos, tokenizer.encode("a")[0]
    ids_BT = torch.zeros_like(batch.token_ids_BT)
    ids_BT[:, :3] = torch.tensor([[mark, word, end], [word, word, mark], [word, word, word], [end, word, end]])
    length_B = torch.full((4,), 3)
    mask_BT = torch.arange(ids_BT.shape[1]) < length_B[:, None]
    reasons = ("stop", "length", "recorded", "recorded")
    said = replace(batch, token_ids_BT=ids_BT, length_B=length_B, mask_BT=mask_BT, finish_reason=reasons)
    shown = [said.response_text(row, special=True) for row in range(4)]
    assert shown == ["<|answer|>a", "aa<|answer|>", "aaa", "<|end|>a"]
    assert [said.response_text(row) for row in range(4)] == ["a", "aa", "aaa", "a"]
