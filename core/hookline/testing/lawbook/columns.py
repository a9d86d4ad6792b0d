"""Laws for components that return a batch: advantages, and wrappers around rollout, score or advantage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from hookline.batch.stages import Batch
from hookline.contract.check import hook_methods
from hookline.testing.harness import Harness
from hookline.testing.lawbook.batches import apart, order_of, trailing, widened
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law

OWN = {"hookline_rollout": "", "hookline_score": "reward_BT", "hookline_advantage": "advantage_BT"}
"""Hook → the column that the hook's answer sets."""
LIMIT = 5e-6
"""Allowed difference of one float32 number computed in two ways, by a model whose rows are in another order."""
Answer = Callable[[Any], Batch]


def answers(harness: Harness) -> Iterator[tuple[str, Batch, Answer]]:
    """(hook, the batch that it receives, a function from a batch to the answer) for each hook that returns a batch."""
    for hook, options in hook_methods(harness.subject.cls).items():
        if hook == "hookline_advantage" and not options.get("wrapper"):
            yield hook, harness.batch("score"), lambda scored: harness.ask("hookline_advantage", scored=scored)
        elif options.get("wrapper") and hook == "hookline_score":
            yield hook, harness.lent("score"), lambda inner: harness.around("hookline_score", inner, rollout=inner)
        elif options.get("wrapper") and hook == "hookline_advantage":
            yield (
                hook,
                harness.lent("advantage"),
                lambda inner: harness.around("hookline_advantage", inner, scored=inner),
            )
        elif options.get("wrapper") and hook == "hookline_rollout":
            yield hook, harness.lent("rollout"), lambda inner: harness.around("hookline_rollout", inner)


def each(subject: Subject, about_rollouts: bool = True) -> list[tuple[str, Batch, Answer]]:
    found = [one for one in answers(subject.harness()) if about_rollouts or one[0] != "hookline_rollout"]
    if not found:
        raise NotApplicable("the component returns no such batch")
    return found


def together(result: Batch, lent: Batch) -> tuple[list[int], list[int]]:
    """Row numbers of the samples that both batches contain: (in the result, in the lent batch)."""
    where = {sample: row for row, sample in enumerate(lent.sample_B.tolist())}
    here = [row for row, sample in enumerate(result.sample_B.tolist()) if sample in where]
    return here, [where[int(result.sample_B[row])] for row in here]


def column(name: str, batch: Batch, rows: list[int], width: int | None = None) -> Tensor:
    values = batch.tensors()[name][rows]
    return values[:, :width] if width is not None and values.dim() > 1 else values


def differing(result: Batch, lent: Batch, names: list[str]) -> list[str]:
    """Columns that have changed, in the rows that the result still contains."""
    here, there = together(result, lent)
    found = []
    for name in names:
        if name not in result.tensors():
            found.append(f"{name} is missing")
            continue
        mine, theirs = result.tensors()[name], lent.tensors()[name]
        width = min(mine.shape[1], theirs.shape[1]) if mine.dim() > 1 else None
        distance = apart(column(name, result, here, width), column(name, lent, there, width))
        if distance:
            found.append(f"{name} by {distance:.2g} of its largest entry")
    return found


@law("advantage", "wrapper")
def mask_kept(subject: Subject) -> str | None:
    """The mask says which tokens the policy chose; no component may replace it."""
    for hook, lent, answer in each(subject):
        different = differing(answer(lent), lent, ["mask_BT", "length_B", "token_ids_BT"])
        if different:
            raise Broken(f"{hook}: {', '.join(different)}")
    return None


@law("advantage", "wrapper")
def columns_kept(subject: Subject) -> str | None:
    """Columns that are passed on are unchanged; new values go into new columns."""
    for hook, lent, answer in each(subject):
        free = {"mask_BT", "length_B", "token_ids_BT", OWN[hook]}
        if hook == "hookline_score":
            free |= {name for name in lent.tensors() if name.startswith("terms[")}
        result = answer(lent)
        different = differing(result, lent, [name for name in lent.tensors() if name not in free])
        if different:
            raise Broken(f"{hook}: {', '.join(different)}")
        here, there = together(result, lent)
        if any(result.records[i] is not lent.records[j] for i, j in zip(here, there)):
            raise Broken(f"{hook}: records and tokens belong to different rows")
    return None


@law("advantage", "wrapper")
def zero_outside(subject: Subject) -> str | None:
    """The answer is one finite number per token, and 0 for tokens that the policy did not choose."""
    for hook, lent, answer in each(subject, about_rollouts=False):
        result = answer(lent)
        here, there = together(result, lent)
        own_BT = getattr(result, OWN[hook])[here]
        if own_BT.shape[1:] != result.token_ids_BT.shape[1:]:
            raise Broken(f"{hook}: {OWN[hook]} is {list(own_BT.shape)} for tokens {list(result.token_ids_BT.shape)}")
        outside = own_BT[~lent.mask_BT[there][:, : own_BT.shape[1]]]
        if bool((outside != 0).any()):
            raise Broken(f"{hook}: {OWN[hook]} is up to {float(outside.abs().max()):.3g} where the mask is false")
        if not bool(torch.isfinite(own_BT).all()):
            raise Broken(f"{hook}: {OWN[hook]} is not finite")
    return None


def compare(hook: str, plain: Batch, other: Batch, what: str) -> None:
    """Both batches must hold the same rows, with the same values."""
    if sorted(plain.sample_B.tolist()) != sorted(other.sample_B.tolist()):
        raise Broken(f"{hook}: {what}, the answer has {len(other)} rows instead of {len(plain)}, or different rows")
    here, there = together(other, plain)
    names = [name for name in plain.tensors() if name == OWN[hook] or (name.startswith("extra[") and name[-2:] == "T]")]
    for name in names:
        width = plain.token_ids_BT.shape[1]
        inside = plain.mask_BT[there]
        mine, theirs = column(name, other, here, width), column(name, plain, there, width)
        if mine.shape[:2] != inside.shape:
            raise Broken(f"{hook}: {what}, {name} is {list(mine.shape)} instead of {list(theirs.shape)}")
        distance = apart(mine[inside], theirs[inside])
        if distance > LIMIT:
            raise Broken(f"{hook}: {what}, {name} differs by {distance:.2g} of its largest entry")


@law("advantage", "wrapper")
def permutation(subject: Subject) -> str | None:
    """The order of rows does not matter: each row keeps its own figures."""
    for hook, lent, answer in each(subject, about_rollouts=False):
        shuffled = lent.rows(order_of(lent))
        compare(hook, answer(lent), answer(shuffled), "with the rows in another order")
    return None


@law("advantage", "wrapper")
def padding(subject: Subject) -> str | None:
    """Nothing depends on padding: more padding, junk in it, or unchosen tokens behind an answer change no figure."""
    words = subject.harness().tokenizer.vocabulary
    for hook, lent, answer in each(subject, about_rollouts=False):
        plain = answer(lent)
        compare(hook, plain, answer(widened(lent, words)), "with three more columns of padding, full of junk")
        compare(hook, plain, answer(trailing(lent, words)), "with two unchosen tokens behind every answer")
    return None
