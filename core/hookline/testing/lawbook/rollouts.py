"""Laws for rollouts."""

from __future__ import annotations

from hookline.batch.stages import Rollout
from hookline.testing.harness import Harness
from hookline.testing.lawbook.batches import apart, groups_of
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law


def three(harness: Harness) -> list[Rollout]:
    """The batches of three steps, with the update in between."""
    found: list[Rollout] = []
    harness.restore()
    ask = harness.loop.hooks.rollout
    for _ in range(3):
        harness.loop.hooks.rollout = lambda ctx: found.append(ask(ctx)) or found[-1]  # type: ignore[func-returns-value,method-assign]
        try:
            harness.step()
        finally:
            del harness.loop.hooks.rollout
    return found


@law("rollout")
def numbers(subject: Subject) -> str | None:
    """No sample number and no group number is used twice: `ctx.sample_ids(n)` returns new sample numbers."""
    seen: set[int] = set()
    groups: set[int] = set()
    for step, rollout in enumerate(three(subject.harness())):
        samples, now = rollout.sample_B.tolist(), set(rollout.group_B.tolist())
        if len(set(samples)) < len(samples) or seen & set(samples):
            raise Broken(f"step {step + 1} uses sample numbers that were used before")
        if groups & now:
            raise Broken(f"step {step + 1} uses group numbers that were used before, for other prompts")
        seen, groups = seen | set(samples), groups | now
    return f"{len(seen)} samples in {len(groups)} groups"


@law("rollout")
def behaviour(subject: Subject) -> str | None:
    """If the rollout says how tokens were drawn, its log-probs are the policy's own under the declared sampling."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    if not isinstance(rollout, Rollout) or rollout.behaviour is None:
        if "behaviour" in harness.component.gives:
            raise Broken("the component gives `behaviour`, but its rollout has none")
        raise NotApplicable("the rows are read, not drawn")
    said, mask = rollout.behaviour, rollout.mask_BT
    if "off-policy" in harness.component.gives:
        raise NotApplicable("the component declares rows of other policies")
    if bool((said.logprobs_BT[~mask] != 0).any()):
        raise Broken("behaviour.logprobs_BT is not 0 where the mask is false")
    gap_BT = harness.loop.ctx.stats(rollout, support="kept").logprobs_BT - said.logprobs_BT
    worst = float(gap_BT[mask].abs().max()) if bool(mask.any()) else 0.0
    if worst > 1e-4:
        raise Broken(f"a token's log-prob is {worst:.3g} away from the policy's own under {said.sampling}")
    version = harness.loop.phase.roles["policy"].version
    if bool((said.version_BT[mask] != version).any()):
        raise Broken(f"version_BT is {int(said.version_BT[mask].min())}, but the policy's version is {version}")
    if said.sampling.truncated and said.support is None:
        raise Broken("the sampling is truncated, but `support` does not list the kept ids, so ratios would be wrong")
    return f"within {worst:.1g} nats"


@law("rollout")
def gives_kept(subject: Subject) -> str | None:
    """The rollout has what the component says it gives: groups of several rows, comparisons, columns."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    for promise in sorted(harness.component.gives):
        if promise == "groups" and len(groups_of(rollout)) == len(rollout):
            raise Broken("the component gives `groups`, but every row has a group of its own")
        if promise.endswith(("_B", "_BT", "_BP")) and promise not in rollout.extra:
            has = ", ".join(rollout.extra) or "no extra column"
            raise Broken(f"the component gives '{promise}', but its rollout has {has}")
    return None


@law("rollout")
def whole_rows(subject: Subject) -> str | None:
    """Every row has a prompt, a token inside the mask, and its own record; rows of a group share their prompt."""
    rollout = subject.harness().batch("rollout")
    if not len(rollout):
        raise Broken("the first step has no rows")
    if not bool(rollout.mask_BT.any(1).all()):
        raise Broken(f"{int((~rollout.mask_BT.any(1)).sum())} of {len(rollout)} rows have no token inside the mask")
    prompts: dict[int, list[int]] = {}
    for row, group in enumerate(rollout.group_B.tolist()):
        if prompts.setdefault(group, rollout.prompt_ids(row)) != rollout.prompt_ids(row):
            raise Broken(f"group {group} holds rows of different prompts")
    return None


@law("rollout")
def evaluation(subject: Subject) -> str | None:
    """Every evaluation sees the same rows, beginning with the first, and does not change the steps that follow."""
    harness = subject.harness()
    loop = harness.loop
    before = loop.phase.scope.samples
    runs = [loop.evaluators[0].run(loop.ctx)[1] for _ in range(2)]
    if runs[0] != runs[1]:
        raise Broken("two evaluations in a row see different rows; use ctx.take and ctx.sample_ids, store no position")
    if loop.phase.scope.samples != before:
        raise Broken("an evaluation used up sample numbers of the phase")
    harness.step()
    first = harness.weights()
    harness.restore()
    harness.step()
    if any(apart(value, first[name]) for name, value in harness.weights().items()):
        raise Broken("the step after an evaluation sees other rows than without the evaluation")
    return f"{len(runs[0])} rows"
