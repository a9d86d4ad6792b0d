"""Experience replay (Lin 1992; Mnih et al. 2015) of whole groups: adds rows of earlier steps to each step's new rows.

Groups are stored as they were drawn: ids, behaviour log-probs, policy version, records. Rewards are computed again when a group is
replayed, since wrappers may have changed. A group occurs at most once per step, so that group statistics stay correct. Groups are
chosen uniformly (`uniform`), or by rank, P(i) ∝ rank(i)^(−sharpness) (Schaul et al. 2016, §3.3), of the mean reward or the mean
|advantage| when last seen; new groups rank first. A choice by rank shifts the mix of prompts, and this is not corrected.

Replayed rows were not drawn by the current policy: use an update that tolerates off-policy rows, or wrap the advantage with
`importance-weights`. Healthy: `replay_age` is a few optimiser steps, and `importance_ess` is above .5.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

import hookline
from hookline import (
    Advantaged,
    Behaviour,
    Component,
    Context,
    ExperimentError,
    KeptIds,
    Metric,
    Rollout,
    Sampling,
    Scored,
    concat,
    hookimpl,
)
from hookline_plugins.maths import masked_mean


@dataclass
class Stored:
    """A group as it was drawn, and its priority when last seen (infinity for a new group)."""

    rollout: Rollout
    worth: float = float("inf")


class Replay(Component):
    """Wraps the rollout: stores its groups and adds groups of earlier steps."""

    needs = frozenset({"behaviour"})
    gives = frozenset({"off-policy"})
    sharded = frozenset({"groups"})
    metrics = (
        Metric("replay_share", "replayed rows over all rows of the step"),
        Metric("replay_age", "mean over replayed rows of optimiser steps since they were drawn", "optimiser steps"),
        Metric("replay_stored", "stored groups before the step's own are added", "groups", aggregate="last"),
    )

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            "buffer_size": "capacity", "replay_buffer_size": "capacity", "batch_size": "groups", "alpha": "sharpness",
        }  # fmt: skip
        capacity: int = Field(256, ge=1)
        """Maximum number of stored groups; the oldest are dropped first. Large replays older rows."""
        groups: int = Field(16, ge=1)
        """Number of groups replayed per step, if that many are stored. Large uses each answer more often and further off-policy."""
        choose: Literal["uniform", "reward", "advantage"] = "uniform"
        """How groups are chosen: uniformly, by highest mean reward, or by highest mean |advantage|, when last seen."""
        sharpness: float = Field(0.7, ge=0)
        """How strongly rank counts. 0 equals `uniform`; large replays the first few groups again and again."""
        max_age: int | None = Field(None, ge=1)
        """Groups that are older than this number of optimiser steps are dropped; none: only `capacity` limits their age."""

    def __init__(self, config: hookline.Config) -> None:
        super().__init__(config)
        self.stored: dict[int, Stored] = {}
        """By group, oldest first."""

    def setup(self, ctx: Context) -> None:
        self.decode = ctx.tokenizer.decode

    @hookimpl(wrapper=True)
    def hookline_rollout(self, ctx: Context) -> Generator[None, Rollout, Rollout]:
        fresh = yield
        now = ctx.role_named("policy").version
        if self.config.max_age is not None:
            young = {g: s for g, s in self.stored.items() if now - version(s.rollout) <= self.config.max_age}
            self.stored = young
        new = rows_by_group(fresh.group_B)
        parts = ctx.gather(({group: stored.worth for group, stored in self.stored.items()}, list(new)))
        worths = {group: worth for held, _ in parts for group, worth in held.items()}
        worths = {group: worths[group] for group in sorted(worths)}  # on all ranks; later groups have larger ids
        chosen = self._chosen(ctx, worths)
        back = [self.stored[group].rollout for group in chosen if group in self.stored]
        ctx.log("replay_stored", len(worths))
        self._keep(fresh, new)
        every = [*worths, *sorted(group for _, more in parts for group in more)]
        self.stored = {group: self.stored[group] for group in every[-self.config.capacity :] if group in self.stored}
        if not chosen:
            return fresh
        whole = concat([*([fresh] if len(fresh) or not back else []), *back])
        ages = torch.tensor([float(now - version(rollout)) for rollout in back for _ in range(len(rollout))])
        ctx.log("replay_share", len(ages) / max(1, len(whole)), len(whole))
        ctx.log("replay_age", ctx.mean(ages), len(ages))
        return whole

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        if self.config.choose == "reward":
            self._value(scored, scored.reward_B)
        return scored

    @hookimpl(wrapper=True)
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Generator[None, Advantaged, Advantaged]:
        result = yield
        if self.config.choose == "advantage":
            self._value(result, masked_mean(result.advantage_BT.abs(), result.mask_BT.float(), dim=1))
        return result

    def _chosen(self, ctx: Context, worths: Mapping[int, float]) -> list[int]:
        """The groups to replay, on all ranks: distinct, and stored before this step. worths: priorities by group."""
        groups, wanted = list(worths), min(self.config.groups, len(worths))
        if not wanted:
            return []
        chance = torch.ones(len(groups), dtype=torch.float64)
        if self.config.choose != "uniform":
            worth = torch.tensor(list(worths.values()), dtype=torch.float64)
            rank = torch.empty(len(groups), dtype=torch.float64)
            rank[worth.argsort(descending=True, stable=True)] = torch.arange(1, len(groups) + 1, dtype=torch.float64)
            chance = rank**-self.config.sharpness
        picked = torch.multinomial(chance, wanted, replacement=False, generator=ctx.rng("replay"))
        return [groups[i] for i in picked.tolist()]

    def _keep(self, fresh: Rollout, groups: Mapping[int, list[int]]) -> None:
        for group, rows in groups.items():
            rollout = fresh.rows(rows)
            held = next(iter(self.stored.values())).rollout if self.stored else rollout
            self._check(held, rollout)
            self.stored[group] = Stored(rollout)

    def _check(self, held: Rollout, fresh: Rollout) -> None:
        ours, theirs = held.behaviour, fresh.behaviour
        if theirs is None or ours is None:
            raise ExperimentError(
                f"'{self.instance}' received rows without the sampler's log-probs, which replayed rows require",
                "use a rollout that samples, or leave out the replay",
            )
        if theirs.sampling != ours.sampling or (theirs.support is None) != (ours.support is None):
            raise ExperimentError(
                f"'{self.instance}' stores answers drawn with {said(ours.sampling)}, but the rollout now draws with "
                f"{said(theirs.sampling)}; their ratios are not comparable in one batch",
                "keep the options of sampling as they are for the whole phase, or leave out the replay",
            )

    def _value(self, scored: Scored, worth_B: Tensor) -> None:
        for group, rows in rows_by_group(scored.group_B).items():
            if group in self.stored:
                self.stored[group].worth = float(worth_B[rows].double().mean())

    def state_dict(self) -> dict[str, Any]:
        return {
            "groups": {str(g): packed(stored.rollout) | {"worth": stored.worth} for g, stored in self.stored.items()}
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        groups = state["groups"]
        if "worth" in state:  # as an earlier release saved them
            groups = {str(i): {**group, "worth": state["worth"][i]} for i, group in enumerate(groups)}
        self.stored = {}
        for group in groups.values():
            rollout = unpacked(group, self.decode)
            self.stored[int(rollout.group_B[0])] = Stored(rollout, float(group["worth"]))


def rows_by_group(group_B: Tensor) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row, group in enumerate(group_B.tolist()):
        found.setdefault(group, []).append(row)
    return found


def version(rollout: Rollout) -> int:
    """The version of the weights that drew a group: that of its oldest token."""
    assert rollout.behaviour is not None
    chosen = rollout.behaviour.version_BT[rollout.mask_BT]
    return int(chosen.min()) if len(chosen) else 0


def said(sampling: Sampling) -> str:
    return ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in asdict(sampling).items())


EARLIER = ("temperature", "top_k", "top_p", "min_p")
"""What earlier releases saved of a sampling, in this order: the first three, or all."""


def packed(rollout: Rollout) -> dict[str, Any]:
    """A rollout as tensors and plain values."""
    behaviour = rollout.behaviour
    assert behaviour is not None
    support, sampling = behaviour.support, behaviour.sampling
    return {
        "tensors": rollout.tensors(),
        "support": [] if support is None else [support.ids, support.offsets],
        "sampling": asdict(sampling),
        "ends": list(behaviour.ends),
        "records": [dict(record) for record in rollout.records],
        "finish_reason": list(rollout.finish_reason),
        "source": list(rollout.source),
    }


def unpacked(group: Mapping[str, Any], decode: Any) -> Rollout:
    own: dict[str, Tensor] = {}
    behaviour: dict[str, Tensor] = {}
    extra: dict[str, Tensor] = {}
    for name, tensor in group["tensors"].items():
        if name.startswith("extra["):
            extra[name[6:-1]] = tensor
        elif name.startswith("behaviour."):
            behaviour[name.removeprefix("behaviour.")] = tensor
        else:
            own[name] = tensor
    support: Sequence[Tensor] = group["support"]
    kept = group["sampling"]
    return Rollout(
        **own,
        extra=extra,
        records=tuple(group["records"]),
        decode=decode,
        finish_reason=tuple(group["finish_reason"]),
        source=tuple(group["source"]),
        behaviour=Behaviour(
            **behaviour,
            sampling=Sampling(**(kept if isinstance(kept, Mapping) else dict(zip(EARLIER, kept)))),
            support=KeptIds(*support) if support else None,
            ends=tuple(group.get("ends", ())),  # an earlier release did not save them
        ),
    )
