"""Laws for updates: what a gradient may and may not depend on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from hookline.batch.stages import Advantaged, Batch
from hookline.contract.fields import UpdateConfig
from hookline.testing.harness import Gradient, Harness
from hookline.testing.lawbook.batches import apart, order_of, trailing, widened
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law
from hookline.training.statistics import forward

AWAY = 0.02
"""How far weights move for the gradient of a later epoch, as noise per entry, so that ratios differ from 1."""
STEPS = (0.02, 0.004, 0.0008, 0.0001, 0.00002)
"""Step sizes of finite differences: a large step rises above float32's noise, a small step stays within a narrow clip."""


def gradient(harness: Harness, batch: Batch, **how: Any) -> Gradient:
    """The update's gradient on a batch; raises NotApplicable if there is none."""
    if harness.loop.phase.trainer is None:
        raise NotApplicable("the update trains nothing through ctx.train")
    found = harness.gradient(batch, **how)
    if not found.steps:
        raise NotApplicable("the update took no optimiser step on the harness's rows")
    return found


def latest(harness: Harness) -> Batch:
    """The batch that the update receives: the latest stage of the phase."""
    return harness.batch("advantage")


def same(one: Gradient, other: Gradient, limit: float, what: str) -> None:
    distance = apart(one.flat(), other.flat())
    if distance > limit:
        raise Broken(f"{what}: the gradient differs by {distance:.2g} of its largest entry; {limit:.0e} is allowed")


@law("update")
def padding(subject: Subject) -> str | None:
    """Nothing depends on padding: more padding, junk in it, or unchosen tokens behind an answer change no gradient."""
    harness = subject.harness()
    batch, words = latest(harness), harness.tokenizer.vocabulary
    plain = gradient(harness, batch, away=AWAY)
    same(
        plain,
        gradient(harness, widened(batch, words), away=AWAY),
        2e-6,
        "with three more columns of padding, full of junk",
    )
    same(
        plain,
        gradient(harness, trailing(batch, words), away=AWAY),
        2e-6,
        "with two unchosen tokens behind every answer",
    )
    return None


@law("update")
def micro_batches(subject: Subject) -> str | None:
    """The gradient does not depend on the split into micro-batches: every mean is over the whole optimiser step."""
    harness = subject.harness()
    batch = latest(harness)
    whole = gradient(harness, batch, away=AWAY)
    lengths_B = batch.prompt_length_B + batch.length_B
    for tokens, what in ((1, "one unit to a micro-batch"), (3 * int(lengths_B.max()), "three rows to a micro-batch")):
        same(whole, gradient(harness, batch, micro_tokens=tokens, away=AWAY), 1e-6, what)
    return None


@law("update")
def permutation(subject: Subject) -> str | None:
    """The order of rows does not matter."""
    harness = subject.harness()
    batch = latest(harness)
    shuffled = batch.rows(order_of(batch))
    same(
        gradient(harness, batch, away=AWAY),
        gradient(harness, shuffled, away=AWAY),
        2e-6,
        "with the rows in another order",
    )
    return None


@law("update")
def zero_advantage(subject: Subject) -> str | None:
    """If every advantage is 0, the policy's gradient is 0, except for regularisers."""
    harness = subject.harness()
    batch = latest(harness)
    if not issubclass(subject.cls.takes, Advantaged) or not isinstance(batch, Advantaged):
        raise NotApplicable("the update takes no advantages")
    full = gradient(harness, batch, away=AWAY).flat("policy/")
    left = flat_of(harness, batch)
    if relative(left, full) <= 1e-6:
        return None
    # a regulariser, such as an entropy bonus, needs no advantage; once it is switched off, nothing may be left
    smallest = relative(left, full)
    for name, field in subject.cls.Config.model_fields.items():
        if name in UpdateConfig.model_fields or not isinstance(field.default, float) or not field.default:
            continue
        try:
            other = subject.harness(**{field.alias or name: 0.0})
        except Exception:  # 0 is not allowed there
            continue
        rest = relative(flat_of(other, latest(other)), full)
        smallest = min(smallest, rest)
        if rest <= 1e-6:
            return f"once {field.alias or name} is 0"
    raise Broken(f"without advantages the policy's gradient is still {smallest:.2g} of what it is with them")


def flat_of(harness: Harness, batch: Batch, first: bool = False) -> Tensor:
    """The policy's gradient if all advantages are 0."""
    without = replace(cast(Advantaged, batch), advantage_BT=torch.zeros_like(cast(Advantaged, batch).advantage_BT))
    return gradient(harness, without, away=AWAY).flat("policy/", first)


def relative(part: Tensor, whole: Tensor) -> float:
    largest = float(whole.abs().max()) if whole.numel() else 0.0
    return float(part.abs().max()) / largest if largest else float(part.abs().max()) if part.numel() else 0.0


@law("update", claimed=True)
def reinforce(subject: Subject) -> str | None:
    """On freshly drawn rows, the policy gradient is that of REINFORCE, the gradient of −A log π, up to a factor."""
    harness = subject.harness()
    batch = latest(harness)
    if not isinstance(batch, Advantaged):
        raise NotApplicable("the update takes no advantages")
    mine = gradient(harness, batch).flat("policy/", first=True) - flat_of(harness, batch, first=True)
    harness.restore()
    distances = {}
    for name, theirs in textbook(harness, batch).items():
        factor = float((mine @ theirs) / (theirs @ theirs))
        distances[name] = apart(mine, factor * theirs) if factor > 0 else 1.0
    best = min(distances, key=lambda name: distances[name])
    if distances[best] > 1e-5:
        raise Broken(f"the nearest form averages over {best} and differs by {distances[best]:.2g} of the largest entry")
    return f"averaged over {best}"


def textbook(harness: Harness, batch: Advantaged) -> dict[str, Tensor]:
    """The gradient of −A log π, for each way of averaging in the literature."""
    policy = harness.loop.phase.roles["policy"]
    trained = sorted(policy.trainable().items())
    weighed_BT = -batch.advantage_BT * forward(policy, batch, ("logprobs",))["logprobs"]
    count_B = batch.mask_BT.sum(1).clamp(min=1)
    means = {
        "tokens": weighed_BT.sum() / batch.mask_BT.sum(),
        "rows of each one's mean over tokens": (weighed_BT.sum(1) / count_B).mean(),
        "rows of each one's sum": weighed_BT.sum(1).mean(),
    }
    found = {}
    for name, mean in means.items():
        grads = torch.autograd.grad(mean, [p for _, p in trained], retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for (_, p), g in zip(trained, grads)]
        found[name] = torch.cat([part.reshape(-1) for part in parts])
    return found


@law("update")
def gradcheck(subject: Subject) -> str | None:
    """The gradient is the slope of the logged loss, by finite differences along the gradient and across it."""
    harness = subject.harness()
    batch = latest(harness)
    exact = gradient(harness, batch)
    step = exact.steps[-1]
    for role in sorted({name.partition("/")[0] for name in step}):
        mine = {name: g for name, g in step.items() if name.startswith(f"{role}/")}
        size = float(torch.cat([g.reshape(-1) for g in mine.values()]).norm())
        generator = torch.Generator().manual_seed(1)
        across = {name: torch.randn(g.shape, generator=generator) / g.numel() ** 0.5 for name, g in mine.items()}
        along = {name: g / size for name, g in mine.items()} if size else across
        for direction, how in ((along, "along"), (across, "across")):
            slope = sum(float((mine[name] * direction[name]).sum()) for name in mine)
            for h in STEPS:
                measured, noise = finite_difference(harness, batch, step, direction, h)
                size_here = max(abs(slope), abs(measured))
                drowned = h < STEPS[0] and noise > 0.02 * size_here
                if not drowned and abs(slope - measured) <= 0.01 * size_here + noise:
                    break
            else:
                raise Broken(
                    f"{how} the gradient of role '{role}' the loss has slope {measured:.4g}, the gradient says {slope:.4g}; "
                    "if a factor is detached on purpose, give the reason in `exempt`"
                )
    return None


def finite_difference(
    harness: Harness, batch: Batch, step: dict[str, Tensor], direction: dict[str, Tensor], h: float
) -> tuple[float, float]:
    """(slope of the loss along a direction, possible error of float32), by Richardson's extrapolation."""

    def loss(h: float) -> float:
        moved = {name: h * direction[name] if name in direction else torch.zeros_like(g) for name, g in step.items()}
        return harness.gradient(batch, away=moved).losses[-1]

    def slope(h: float) -> float:
        return (loss(h) - loss(-h)) / (2 * h)

    return (4 * slope(h / 2) - slope(h)) / 3, 3e-7 * max(1.0, abs(loss(0.0))) / h
