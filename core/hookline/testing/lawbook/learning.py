"""Laws for updates about what is learned: in which direction, from which rows, and by which parts of the model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hookline.batch.stages import Advantaged, Batch, Scored
from hookline.testing.harness import Gradient, Harness
from hookline.testing.lawbook.batches import groups_of
from hookline.testing.lawbook.updates import AWAY, gradient, latest
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law
from hookline.training.statistics import forward

PROBES = 4
"""Rows whose likelihood is watched one by one."""


def with_advantage(batch: Advantaged, advantage_BT: Tensor) -> Advantaged:
    return replace(batch, advantage_BT=torch.where(batch.mask_BT, advantage_BT, 0.0))


def pull(harness: Harness, batch: Advantaged, advantage_BT: Tensor) -> Tensor:
    """The policy's gradient at the first optimiser step with these advantages; 0 if no step is taken."""
    found = harness.gradient(with_advantage(batch, advantage_BT))
    trainer = harness.loop.phase.trainer
    assert trainer is not None
    size = sum(p.numel() for name, p in trainer.parameters.items() if name.startswith("policy/"))
    return found.flat("policy/", first=True) if found.steps else torch.zeros(size)


def taking_advantages(subject: Subject) -> tuple[Harness, Advantaged]:
    """The harness of an update that takes advantages, and its batch. Raises NotApplicable for other updates."""
    harness = subject.harness()
    batch = latest(harness)
    if not issubclass(subject.cls.takes, Advantaged) or not isinstance(batch, Advantaged):
        raise NotApplicable("the update takes no advantages")
    return harness, batch


@law("update")
def some_gradient(subject: Subject) -> str | None:
    """The update computes a gradient that is not 0, and advantages that differ change the policy's."""
    harness = subject.harness()
    batch = latest(harness)
    found = gradient(harness, batch, away=AWAY)
    where = "look for a .detach(), torch.no_grad() or a factor that is 0 in the loss"
    if not bool((found.flat() != 0).any()):
        raise Broken(f"every gradient is 0, so nothing is learned; {where}")
    if issubclass(subject.cls.takes, Advantaged) and isinstance(batch, Advantaged):
        without = harness.gradient(with_advantage(batch, torch.zeros_like(batch.advantage_BT)), away=AWAY)
        if torch.equal(found.flat("policy/"), without.flat("policy/")):
            raise Broken(
                f"the policy's gradient is the same with and without advantages, so they teach nothing; {where}"
            )
    return None


@law("update")
def ascent(subject: Subject) -> str | None:
    """On its own samples, an answer with a positive advantage becomes likelier."""
    harness, batch = taking_advantages(subject)
    gradient(harness, batch)
    given = harness.loop.planned.gives
    if "behaviour" not in given or "off-policy" in given:
        raise NotApplicable("the rows are not drawn by the policy itself")
    none_BT = torch.zeros_like(batch.advantage_BT)
    rest = pull(harness, batch, none_BT)  # what regularisers add
    if not bool((pull(harness, batch, batch.advantage_BT) - rest != 0).any()):
        raise NotApplicable("advantages change no gradient; see `some-gradient`")
    for row in chosen(batch):
        alone_BT = none_BT.clone()
        alone_BT[row] = 1.0
        step = rest - pull(harness, batch, alone_BT)  # the direction in which weights would move
        harness.restore()
        likelier = likelihood(harness, batch, row)
        slope = float((step.double() @ likelier.double()) / (step.norm() * likelier.norm()).clamp(min=1e-30))
        if slope <= 0:
            how = "makes that answer less likely" if slope else "leaves that answer as likely as it was"
            raise Broken(
                f"with advantage 1 for row {row} alone, a step {how} (cosine {slope:.2g} between the step and the gradient of its "
                "log-prob); the loss is minimised, so it is minus the advantage times the log-prob"
            )
    return None


def chosen(batch: Batch) -> list[int]:
    """A few rows with chosen tokens, spread over the batch."""
    rows = [row for row, count in enumerate(batch.mask_BT.sum(1).tolist()) if count]
    return rows[:: max(1, len(rows) // PROBES)][:PROBES]


def likelihood(harness: Harness, batch: Batch, row: int) -> Tensor:
    """The gradient of an answer's log-prob for the policy's trained weights, as one vector [N]."""
    policy = harness.loop.phase.roles["policy"]
    trained = sorted(policy.trainable().items())
    logprob = forward(policy, batch.rows([row]), ("logprobs",))["logprobs"].sum()
    grads = torch.autograd.grad(logprob, [p for _, p in trained], allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for (_, p), g in zip(trained, grads)])


@law("update")
def groups_apart(subject: Subject) -> str | None:
    """If groups are needed, the rows of a group are learned from as if other groups were not there."""
    harness = subject.harness()
    if "groups" not in harness.component.needs:
        raise NotApplicable("the update needs no groups")
    batch = latest(harness)
    name = (
        "advantage_BT" if issubclass(subject.cls.takes, Advantaged) and isinstance(batch, Advantaged) else "reward_BT"
    )
    if not isinstance(batch, Scored) or not issubclass(subject.cls.takes, Scored):
        raise NotApplicable("the update takes no rewards and no advantages")
    groups = groups_of(batch)
    if len(groups) < 2:
        raise NotApplicable("the harness's rows are one group")
    first_B = torch.isin(batch.group_B, torch.tensor(groups[: len(groups) // 2]))

    def at(first: float, second: float) -> Gradient:
        factor_B = torch.where(first_B, first, second)
        return gradient(harness, replace(batch, **{name: getattr(batch, name) * factor_B[:, None]}), away=AWAY)

    # a gradient that is a sum over groups: what one part adds does not depend on the other part
    found = {(one, two): at(one, two).flat("policy/") for one in (1.0, 3.0) for two in (1.0, 3.0)}
    if len({len(g) for g in found.values()}) > 1:
        raise NotApplicable("the number of optimiser steps depends on the values")
    beside, alone = found[3.0, 3.0] - found[3.0, 1.0], found[1.0, 3.0] - found[1.0, 1.0]
    size = max(float(g.abs().max()) for g in found.values())
    distance = float((beside - alone).abs().max()) / size if size else 0.0
    if distance > 1e-4:
        raise Broken(
            f"with {name} of other groups three times as large, what a group adds to the gradient changes by {distance:.2g} of its "
            "largest entry; compare a row with rows of its own group only"
        )
    return None


@law("update")
def heads_trained(subject: Subject) -> str | None:
    """Every head that the component makes with ctx.head gets a gradient; targets get none."""
    harness = subject.harness()
    who, roles = harness.component.instance, harness.loop.phase.roles
    mine = [(role, head) for (role, head), maker in roles.makers.items() if maker == who]
    if not mine:
        raise NotApplicable("the component makes no head")
    found = gradient(harness, latest(harness), away=AWAY)
    for role, head in mine:
        if not bool((found.flat(f"{role}/heads.{head}.") != 0).any()):
            raise Broken(
                f"head '{head}' of role '{role}' gets no gradient, so it stays as it was made; add its loss, or make a target with "
                "ctx.target"
            )
    return ", ".join(head for _, head in mine)
