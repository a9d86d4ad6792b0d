"""Answers of training as people read them: a few rows of some steps, with their rewards and advantage."""

from __future__ import annotations

from typing import Any

import torch

from hookline.batch.stages import Advantaged, Rollout, Scored
from hookline.config.experiment import Completions

__all__ = ["due", "shown"]

OFTEN = 100
"""Steps of one interval that are kept before the interval becomes ten times as long."""
CHARACTERS = 8000
"""A longer prompt or answer is cut in its middle."""


def due(step: int, spec: Completions) -> bool:
    """Whether rows of a step, from 1, are kept.

    The answer depends on the step alone, so that a resumed or lengthened phase keeps the same ones: with `every: 10`, step 1, every
    10th step up to 1 000, every 100th up to 10 000, and so on.
    """
    if not spec.every or step == 1:
        return bool(spec.every)
    apart = spec.every
    while step > OFTEN * apart:
        apart *= 10
    return step % apart == 0


def shown(batch: Rollout, rows: int) -> list[dict[str, Any]]:
    """At most `rows` rows, spread evenly over the batch, so that they are answers to several prompts; an episode of several rows
    is kept with all of them."""
    count = min(rows, len(batch))
    kept = torch.tensor([at * len(batch) // count for at in range(count)], dtype=torch.long)
    whole_B = torch.isin(batch.episode_B, batch.episode_B[kept])
    return [_row(batch, row) for row in whole_B.nonzero()[:, 0].tolist()]


def _row(batch: Rollout, row: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "sample": int(batch.sample_B[row]),
        "group": int(batch.group_B[row]),
        "prompt": _cut(batch.prompt_text(row)),
        "completion": _cut(batch.response_text(row)),
        "tokens": int(batch.mask_BT[row].sum()),
        "finish_reason": batch.finish_reason[row],
        "source": batch.source[row],
        "reward": None,
        "advantage": None,
    }
    if isinstance(batch, Scored):
        found["reward"] = float(batch.reward_BT[row].sum())
        found |= {f"reward/{name}": float(term_B[row]) for name, term_B in batch.terms.items()}
    if isinstance(batch, Advantaged) and found["tokens"]:
        found["advantage"] = float(batch.advantage_BT[row].sum()) / found["tokens"]
    several = int((batch.episode_B == batch.episode_B[row]).sum()) > 1
    if several or found["tokens"] < int(batch.length_B[row]):
        found |= {"episode": int(batch.episode_B[row]), "stretches": _stretches(batch, row)}
    return found


def _stretches(batch: Rollout, row: int) -> list[dict[str, Any]]:
    """A response in pieces: what the policy chose, with its reward and its mean advantage, and what it read in between."""
    ids, mask = batch.response_ids(row), batch.mask_BT[row, : int(batch.length_B[row])].tolist()
    begins = [at for at in range(len(ids)) if at == 0 or mask[at] != mask[at - 1]]
    found = []
    for start, end in zip(begins, [*begins[1:], len(ids)]):
        piece = {"text": _cut(batch.decode(ids[start:end])), "tokens": end - start, "chosen": mask[start]}
        if isinstance(batch, Scored) and mask[start]:
            piece["reward"] = float(batch.reward_BT[row, start:end].sum())
        if isinstance(batch, Advantaged) and mask[start]:
            piece["advantage"] = float(batch.advantage_BT[row, start:end].mean())
        found.append(piece)
    return found


def _cut(text: str) -> str:
    """The text, without its middle if it is long."""
    if len(text) <= CHARACTERS:
        return text
    half = CHARACTERS // 2
    return f"{text[:half]} […{len(text) - 2 * half} characters…] {text[-half:]}"
