"""Episodes of several turns: the policy replies, an environment answers, the policy replies again, until the episode is over.

Tokens in, tokens out: what the policy sampled is never encoded again. The prompt of a reply is the prompt of the reply before it, the
sampled ids, and the ids that the chat template adds for what the environment said; these are not learned (the mask is false). The
reward of a reply is on its last token (`recorded_BT`). A template that writes earlier turns in another way once others follow, e.g.
without thoughts, makes a row of each reply; the rows of an episode share its number (`episode_B`), and groups count it once.

An episode ends when its environment says so (`terminated`, finish reason `stop`), or it is cut (`length`): by the environment, after
`max_turns` replies, or before a turn for which the model's context has no room. An episode whose environment failed is not judged.
All episodes of a step are drawn together, and their environments answer at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hookline import (
    Behaviour,
    Component,
    Context,
    DataError,
    DataName,
    Encoder,
    Environment,
    ExperimentError,
    KeptIds,
    Metric,
    Record,
    Rollout,
    Sampling,
    Turn,
    Use,
    hookimpl,
)
from hookline_plugins.rollouts.episode import Episode
from hookline_plugins.rollouts.played import Played
from hookline_plugins.rollouts.saved import save
from hookline_plugins.sampling import SamplingOptions

REPORTED = 5
"""Number of reasons for which episodes were not judged that a run tells."""


class Turns(Component):
    """Plays one environment per episode, many at once."""

    metrics = (
        Metric("episodes", "number of episodes that were played to their end", "episodes", aggregate="sum"),
        Metric("episode_return", "mean over episodes of the sum of their turns' rewards", better="higher"),
        Metric("episode_turns", "mean number of replies in an episode"),
        Metric("episode_rows", "mean number of rows of an episode: more than 1 if the template rewrites earlier turns"),
        Metric("cut_episodes", "share of episodes that were cut before they ended", healthy=(0.0, 0.5)),
    )
    gives = property(
        lambda self: (
            {"behaviour", "recorded_BT", "ok_B"} | ({"groups"} if self.config.samples_per_prompt > 1 else set())
        )
    )

    class Config(SamplingOptions):
        synonyms: ClassVar[Mapping[str, str]] = {
            "max_tool_calling_iterations": "max_turns", "max_assistant_turns": "max_turns", "num_generations": "samples_per_prompt",
            "max_completion_length": "max_new_tokens",
        }  # fmt: skip
        environment: Use[Environment]
        """What is played."""
        prompts: DataName | None = None
        """Rows that episodes begin on, as the environment reads them; none: for environments that need no row."""
        rows: int = Field(16, ge=1)
        """Rows per step."""
        samples_per_prompt: int = Field(1, ge=1)
        """Episodes per row, which begin in the same way. Group methods need at least 2."""
        max_new_tokens: int = Field(64, ge=1)
        """Number of tokens after which a reply is cut."""
        max_turns: int = Field(8, ge=1)
        """Number of replies after which an episode is cut."""
        time_limit: float = Field(60.0, gt=0)
        """Seconds that an environment may take to begin or to answer; after that, its episode is not judged."""
        transcripts: int = Field(10, ge=0)
        """Every so many steps, the episodes are written to the run's `episodes/PHASE/STEP.jsonl`; 0: never."""

    @property
    def needs(self) -> set[str]:
        return {"decodes"} | ({"engine:kept-ids"} if self.sampling.truncated else set())

    @property
    def sampling(self) -> Sampling:
        """What replies are drawn from."""
        drawn_from: Sampling = self.config.sampling
        return drawn_from

    positions = property(lambda self: int(self.config.max_new_tokens) + 1)

    def setup(self, ctx: Context) -> None:
        c = self.config
        self.source = ctx.rows(c.prompts) if c.prompts else None
        self.context = ctx.role_named("policy").context
        if c.max_new_tokens >= self.context:
            raise ExperimentError(
                f"max_new_tokens is {c.max_new_tokens}, but the model has {self.context} positions in total, so no prompt fits",
                "lower max_new_tokens, or build the model with a longer context",
            )
        self.reported: set[str] = set()
        """Why episodes were not judged, as far as the run has said it."""

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int]:
        return len(records), self.config.rows

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        episodes = self._episodes(ctx)
        try:
            self._begin(ctx, episodes)
            sample_B = torch.tensor([one.sample for one in episodes if not one.over], dtype=torch.long)
            while ctx.sum(len(sample_B)):
                playing = [one for one in episodes if not one.over]
                if playing:
                    self._reply(ctx, playing, sample_B)
                # every reply has its own sample id, because the replies of an episode must not share random numbers
                sample_B = ctx.sample_ids(sum(not one.over for one in episodes))
        finally:
            ctx.wait(_all([one.played.close() for one in episodes]))
        self._report(ctx, episodes)
        return self._batch(ctx, episodes)

    # -- the episodes of a step

    def _episodes(self, ctx: Context) -> list[Episode]:
        """New episodes; those of a group follow one another, and have generators that are equal."""
        c = self.config
        if self.source is None:
            records: list[Record] = [{} for _ in ctx.shard(range(c.rows))]
        else:
            records = [self.source.records[i] for i in ctx.take(len(self.source), c.rows)]
        every = [record for record in records for _ in range(c.samples_per_prompt)]
        found = []
        for at, (record, sample) in enumerate(zip(every, ctx.sample_ids(len(every)).tolist())):
            environment = self.parts["environment"].another()
            assert isinstance(environment, Environment)
            played = Played(environment, c.time_limit, _journaled(ctx, sample))
            found.append(Episode(played, record, sample, at // c.samples_per_prompt))
        return found

    def _begin(self, ctx: Context, episodes: Sequence[Episode]) -> None:
        each = self.config.samples_per_prompt
        for one in episodes:
            one.played.setup(ctx)
        starts = [episodes[at // each * each].sample for at in range(len(episodes))]
        asked = [one.played.reset(one.record, ctx.rng("environment", sample)) for one, sample in zip(episodes, starts)]
        for one, turn in zip(episodes, ctx.wait(_all(asked))):
            self._listen(ctx, one, turn)

    def _listen(self, ctx: Context, episode: Episode, turn: Turn | None) -> None:
        """Take over what an environment said, as far as the policy will read it."""
        c = self.config
        if turn is None:
            episode.over = True
            return
        episode.hear(turn)
        if episode.over:
            return
        if len(episode.replies) == c.max_turns:
            episode.over = True
            return
        try:
            episode.read(ctx, turn, self.context - c.max_new_tokens)
        except DataError as err:
            episode.over = True
            episode.played.fail(err)

    def _reply(self, ctx: Context, episodes: Sequence[Episode], sample_B: Tensor) -> None:
        """Let the policy reply in each of these episodes, and the environments answer."""
        for one, sample in zip(episodes, sample_B.tolist()):
            one.rows[-1].numbered(sample)
        drawn = ctx.draw(
            [one.rows[-1].so_far for one in episodes],
            sample_B,
            sampling_=self.sampling,
            max_new_tokens=self.config.max_new_tokens,
        )
        ends = ctx.tokenizer.ends
        asked = [one.played.step(one.say(ctx, drawn, at, ends)) for at, one in enumerate(episodes)]
        for one, turn in zip(episodes, ctx.wait(_all(asked))):
            self._listen(ctx, one, turn)

    # -- after the last turn

    def _report(self, ctx: Context, episodes: Sequence[Episode]) -> None:
        """Journal what cannot be played again, log figures, say why episodes failed, and save transcripts."""
        failed: dict[str, int] = {}
        for one in episodes:
            if why := one.played.failed:
                failed[why] = failed.get(why, 0) + 1
            if (why or not one.played.environment.seeded) and one.played.told is None:
                ctx.once(("episode", one.sample), partial(list, one.played.turns))
            if why:
                continue
            ctx.log("episodes", 1)
            ctx.log("episode_return", one.earned)
            ctx.log("episode_turns", len(one.replies))
            ctx.log("episode_rows", len(one.rows))
            ctx.log("cut_episodes", float(not one.ended))
        new = [why for why in failed if why not in self.reported]
        if new and len(self.reported) < REPORTED:
            self.reported.add(new[0])
            ctx.run.notice(
                f"'{self.instance}' did not judge {sum(failed.values())} of {len(episodes)} episodes: {new[0]}; such rows are left "
                "out and counted"
            )
        every = self.config.transcripts
        if every and not ctx.evaluating and (ctx.step % every == 0):
            save(ctx, [one.transcript(ctx) for one in episodes if not one.played.failed])

    def _batch(self, ctx: Context, episodes: Sequence[Episode]) -> Rollout:
        for one in episodes:
            if not one.rows:  # it failed before it said anything, and has the prompt of its group
                beside = (other for other in episodes if other.group == one.group and other.rows)
                other = next(beside, None)
                one.stand_in(list(other.rows[0].prompt) if other else [ctx.tokenizer.eos])
        rows = [(one, row) for one in episodes for row in one.rows]
        built = Rollout.build(
            ctx,
            [row.encoded(one.record) for one, row in rows],
            source="policy",
            sample_B=torch.tensor([row.sample for _, row in rows], dtype=torch.long),
            group=[one.group for one, _ in rows],
            episode=[one.sample for one, _ in rows],
            finish_reason=["stop" if one.ended or row is not one.rows[-1] else "length" for one, row in rows],
            columns=None if rows else _NOTHING,
        )
        extra = dict(built.extra)
        behaviour = Behaviour(
            logprobs_BT=extra.pop("logprob_BT"),
            version_BT=extra.pop("version_BT").long(),
            sampling=self.sampling,
            support=_support([row.kept for _, row in rows], built.token_ids_BT.shape[1])
            if self.sampling.truncated
            else None,
        )
        ok_B = torch.tensor([not one.played.failed for one, _ in rows], dtype=torch.bool)
        return replace(built, behaviour=behaviour, extra={**extra, "ok_B": ok_B})


_NOTHING = {"recorded_BT": torch.zeros(0, 1), "logprob_BT": torch.zeros(0, 1), "version_BT": torch.zeros(0, 1)}


def _support(kept: Sequence[Sequence[Tensor]], width: int) -> KeptIds:
    """The kept ids of each token of a block; those of tokens that were not drawn are empty."""
    none = torch.zeros(0, dtype=torch.long)
    every = [ids for row in kept for ids in (*row, *[none] * (width - len(row)))]
    counts = torch.tensor([0, *(len(ids) for ids in every)])
    return KeptIds(torch.cat(every) if every else none, counts.cumsum(0))


def _journaled(ctx: Context, sample: int) -> Sequence[Mapping[str, Any]] | None:
    """The turns of an episode that the journal has; None if it has to be played."""

    class _Unknown(Exception):
        pass

    def unknown() -> Any:
        raise _Unknown

    try:
        found: Sequence[Mapping[str, Any]] = ctx.once(("episode", sample), unknown)
    except _Unknown:
        return None
    return found


async def _all(coroutines: Sequence[Any]) -> list[Any]:
    return list(await asyncio.gather(*coroutines))
