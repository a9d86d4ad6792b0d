"""The core's checks of every batch: its size, whether there is anything to learn, whether ratios can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hookline.batch.columns import sum_shared
from hookline.batch.stages import Rollout, Scored
from hookline.errors import NumbersError, PluginError
from hookline.loop.phase import Counters
from hookline.plan.plan import PlannedPhase
from hookline.runs.figures import MetricLog

__all__ = ["count", "judged", "learning_signal", "one_prompt_per_group", "policy_age"]


def count(batch: Rollout, metrics: MetricLog) -> int:
    """Rows, tokens, lengths and rewards of a step. Returns the tokens the policy chose on this rank."""
    rows, tokens = len(batch), int(batch.mask_BT.sum())
    metrics.add("rows", rows)
    metrics.add("tokens", tokens)
    if rows:
        metrics.add("response_length", tokens / rows, rows)
        sampled = [reason for reason in batch.finish_reason if reason != "recorded"]
        if sampled:
            metrics.add("truncated", sampled.count("length") / len(sampled), len(sampled))
    if isinstance(batch, Scored):
        every_B = metrics.world.cat(batch.reward_B, "the step's rewards").double()
        if len(every_B):
            metrics.add("reward", float(every_B.mean()))
            metrics.add("reward_std", float(every_B.std(correction=0)))
    return tokens


def judged(rollout: Rollout, ok_B: Tensor, metrics: MetricLog) -> Tensor:
    """The indices of the rows to keep. If a row could not be judged, its whole episode is dropped; dropped rows are
    counted."""
    ok_B = sum_shared((~ok_B).float(), rollout.episode_B) == 0
    if not bool(ok_B.all()):
        metrics.add("unjudged", float((~ok_B).sum()))
    return ok_B.nonzero()[:, 0]


def learning_signal(
    phase: PlannedPhase, scored: Scored, counters: Counters, metrics: MetricLog, notice: Callable[[str], None]
) -> None:
    """End the run after `patience` steps in a row in which all rewards are equal, since these teach nothing.

    If rewards differed earlier in the phase, the policy may have become as good as it can; then a notice is given and
    the run continues. Rewards are those of whole episodes. An update that compares answers to one prompt, and has no
    advantage, learns nothing where the rewards of each prompt's answers are equal.
    """
    compares = phase.update is not None and bool({"groups", "pairs"} & phase.update.needs)
    if not (phase.advantage_by or compares):
        return
    weights = {slot.instance: slot.weight for slot in phase.rewards}
    total_B = (
        sum((w * scored.terms[n] for n, w in weights.items()), torch.zeros(len(scored))) if weights else scored.reward_B
    )
    total_B = sum_shared(total_B, scored.episode_B)
    total_B, episode_B, group_B = (
        metrics.world.cat(x_B, "the step's rewards") for x_B in (total_B, scored.episode_B, scored.group_B)
    )
    if not len(total_B):
        return
    episodes = len(torch.unique(episode_B))
    groups, where = torch.unique(group_B, return_inverse=True)
    high = total_B.new_full((len(groups),), -math.inf).scatter_reduce(0, where, total_B, "amax")
    low = total_B.new_full((len(groups),), math.inf).scatter_reduce(0, where, total_B, "amin")
    if len(groups) < episodes:
        metrics.add("equal_groups", float((high == low).float().mean()))
    equal = high == low if compares and not phase.advantage_by else high.max() == low.min()
    quiet = bool(equal.all()) and episodes > 1
    counters.quiet_steps = counters.quiet_steps + 1 if quiet else 0
    counters.rewards_differed = counters.rewards_differed or not quiet
    if counters.quiet_steps != phase.spec.patience:
        return
    alike = f"every reward was {float(total_B[0]):g}" if high.max() == low.min() else "each prompt's rewards were equal"
    if counters.rewards_differed:
        notice(f"in {counters.quiet_steps} steps of phase '{phase.spec.name}' {alike}: there is no learning signal now")
        return
    raise NumbersError(
        f"no learning signal: in {counters.quiet_steps} steps of phase '{phase.spec.name}' {alike}",
        "check the reward and a few answers; `patience` sets how many such steps are tolerated",
    )


def one_prompt_per_group(phase: PlannedPhase, batch: Rollout) -> None:
    """Refuse groups whose episodes begin with different prompts, for an update that compares the answers to one."""
    if phase.update is None or not {"groups", "pairs"} & phase.update.needs or not len(batch):
        return
    first_B, opens_B = _first_of(batch.group_B), _first_of(batch.episode_B) == torch.arange(len(batch))
    ids_BP, length_B = batch.prompt_ids_BP, batch.prompt_length_B
    inside_BP = torch.arange(ids_BP.shape[1]) < length_B[:, None]
    differs_B = (length_B != length_B[first_B]) | ((ids_BP != ids_BP[first_B]) & inside_BP).any(1)
    wrong = (differs_B & opens_B).nonzero()[:, 0]  # later rows of an episode begin with what was said before
    if len(wrong):
        row, first = int(wrong[0]), int(first_B[wrong[0]])
        raise PluginError(
            f"{phase.rollout.offer} put samples {int(batch.sample_B[first])} and {int(batch.sample_B[row])} into one "
            f"group, but their prompts differ, and {phase.update.offer} compares the answers to one prompt",
            "give a group to each prompt",
        )


def _first_of(id_B: Tensor) -> Tensor:
    """For each row the index of the first row with the same id."""
    ids, where_B = torch.unique(id_B, return_inverse=True)
    first: Tensor = where_B.new_full((len(ids),), len(id_B))
    return first.scatter_reduce(0, where_B, torch.arange(len(id_B)), "amin")[where_B]


def policy_age(phase: PlannedPhase, batch: Rollout, now: int) -> None:
    """Refuse rows that make ratios wrong: of older weights, or from a cut distribution without the kept ids."""
    update, behaviour = phase.update, batch.behaviour
    if update is None or behaviour is None or not bool(batch.mask_BT.any()):
        return
    oldest = int(behaviour.version_BT[batch.mask_BT].min())
    corrected = any("correction" in slot.gives for slot in phase.wraps)
    if oldest < now and not update.cls.off_policy and not corrected:
        raise PluginError(
            f"{update.offer} has no off-policy correction, but received rows of policy version {oldest}; "
            f"the policy is at {now}",
            "use an update with off_policy = True, or sample fresh rows",
        )
    ratios = "behaviour" in update.needs
    if ratios and behaviour.sampling.truncated and behaviour.support is None:
        raise PluginError(
            f"{phase.rollout.offer} cut the distribution (top-k or top-p) without recording the kept ids, "
            f"and {update.offer} needs ratios",
            "record Behaviour.support, or sample without top_k, top_p and min_p",
        )
