"""Plays a task's decision process: the policy says an action (a word), the process shows the outcome, and so on.

A row consists of the prompt, an action, the words that the process shows, the next action, … The mask excludes shown words; the
reward of an action is on the action's token (`recorded_BT`). If a row ends before its episode does, its last token is the action
that the policy takes next. It is chosen but not yet taken (`taken_BT` is 0 there and 1 on every other action), so that an update
can bootstrap from its value.

`turns: 0` plays new whole episodes in every step. `turns: n` takes n actions per step and continues in the next step: after the
prompt of the current state if the process has a prompt for every state (`resumable`), otherwise after the first prompt and all words
since. `turns: 1` with a `tabular` policy is the textbook's online loop. A word that is not an action ends the episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

import hookline
from hookline import (
    Behaviour,
    Component,
    Context,
    DataError,
    DataName,
    Encoded,
    ExperimentError,
    Metric,
    NextToken,
    PhaseName,
    Process,
    Rollout,
    Sampling,
    State,
    hookimpl,
)
from hookline_plugins.guidance import guide_role, guided, lowest, one_token, q_names
from hookline_plugins.maths import pick


@dataclass
class Choice:
    """A chosen action."""

    token: int
    logprob: float
    version: int


@dataclass
class Game:
    """A running episode."""

    start: int
    state: State
    path: list[list[Any]] = field(default_factory=list)
    """[action, index of its outcome] so far. Only this is saved, because the process can compute its states again."""
    words: list[str] = field(default_factory=list)
    """The words said and shown so far."""
    earned: float = 0.0
    pending: Choice | None = None
    """The action that is chosen and not yet taken."""


@dataclass
class Said:
    """An action in a row."""

    at: int
    choice: Choice
    allowed: list[int] = field(default_factory=list)
    taken: bool = False
    reward: float = 0.0


@dataclass
class Row:
    """A row of the batch while it is played."""

    place: int
    game: Game
    prompt: list[int]
    prompt_text: str
    sample: int = 0
    ids: list[int] = field(default_factory=list)
    actions: list[Said] = field(default_factory=list)
    ended: bool = False
    """The episode is over."""
    closed: bool = False
    """The row is complete."""

    def encoded(self) -> Encoded:
        """The row as tokens; words that the process showed are not learned."""
        chosen = {action.at for action in self.actions}
        learn = [at in chosen for at in range(len(self.ids))]
        return Encoded(prompt_ids=self.prompt, answer_ids=self.ids, learn=learn, record={"prompt": self.prompt_text})


class Episodes(Component):
    """Plays several episodes of a process at once."""

    metrics = (
        Metric("episodes", "number of episodes that ended", "episodes", aggregate="sum"),
        Metric("episode_return", "mean over ended episodes of the sum of their rewards", better="higher"),
        Metric(
            "late_return",
            "mean return over the last fifth of each learner's `episodes`, so far",
            aggregate="last",
            better="higher",
        ),
    )

    sharded = frozenset({"places"})

    class Config(hookline.Config):
        task: DataName
        """A task with a process, e.g. builtin:cliff."""
        rows: int = Field(20, ge=1)
        """Starts per step, spread evenly over the task's starts."""
        samples_per_start: int = Field(1, ge=1)
        """Episodes per start. Group methods need at least 2."""
        turns: int = Field(0, ge=0)
        """Actions per step, in episodes that continue in the next step; 0: new whole episodes in every step."""
        longest: int = Field(100, ge=1)
        """Number of actions after which a whole episode is cut."""
        learners: bool = False
        """Give every row a learner of its own: the learner's word (learner0, …) starts the prompt, so that a table which
        sees `first` separates them. Many independent runs then cost little more than one."""
        episodes: int = Field(0, ge=0)
        """With `turns`: the number of episodes after which a row stops playing; 0: it never stops."""
        temperature: float = Field(1.0, gt=0, le=100)
        """Above 1 flattens the distribution, below 1 sharpens it."""
        epsilon: float | None = Field(None, ge=0, le=1)
        """Take the action of highest Q (a random one on a tie), but with this probability any allowed action. None: draw
        from the policy."""
        beta: float | None = Field(None, ge=0)
        """Draw as `guided` does, from the policy guided by β times its values. None: draw from the policy itself."""
        greedy: bool = False
        """Always take the likeliest word instead of drawing."""
        from_: PhaseName | None = Field(None, alias="from")
        """With `beta`: the phase whose policy and Q heads are used; none: those of this phase."""

        @model_validator(mode="after")
        def _one_way(self) -> Episodes.Config:
            if self.turns and self.samples_per_start > 1:
                raise ValueError("samples_per_start needs whole episodes; leave out turns")
            if self.epsilon is not None and (self.beta is not None or self.greedy):
                raise ValueError("epsilon already defines how actions are chosen; leave out beta and greedy")
            if self.from_ and self.beta is None:
                raise ValueError("from names the phase whose values guide the policy; it requires beta")
            return self

    @property
    def needs(self) -> set[str]:
        c = self.config
        tilted = c.epsilon is not None or c.beta is not None or c.greedy
        return {"decodes"} | ({"engine:combine"} if tilted else set())

    @property
    def gives(self) -> set[str]:
        c = self.config
        found = {"behaviour", "recorded_BT", "taken_BT", "actions_BT"}
        found |= {"groups"} if c.samples_per_start > 1 else set()
        found |= {"paused"} if c.turns else set()
        return found | ({"off-policy"} if c.epsilon is not None or c.beta is not None or c.greedy or c.turns else set())

    def setup(self, ctx: Context) -> None:
        c = self.config
        found = ctx.task(c.task).process()
        if found is None:
            raise DataError(f"{c.task} has no process to play", "name a task that has one, e.g. builtin:walks")
        self.process: Process = found
        self.starts = list(found.starts())
        self.guide = guide_role(ctx, c.from_)
        self.token: dict[str, int] = {}
        self._read_words(ctx)
        self.games: list[Game | None] = [None] * c.rows
        self.played = [0] * c.rows
        self.places = ctx.shard(range(c.rows))
        """The rows that are this rank's."""
        self.late = [0.0, 0.0]

    def _read_words(self, ctx: Context) -> None:
        """Check that each action of each reachable state, and the word of each learner, is one token."""
        level: list[State] = [state for _, state in self.starts]
        known = set(level)
        self.most = 1
        for state in level:  # grows while we walk
            actions = self.process.actions(state)
            self.most = max(self.most, len(actions))
            for action in actions:
                if action not in self.token:
                    self.token[action] = one_token(ctx, action, f"action '{action}' of {self.config.task}")
                for _, after, _ in self.process.step(state, action):
                    if after not in known:
                        known.add(after)
                        level.append(after)
        self.word = {token: action for action, token in self.token.items()}
        if self.config.learners:
            for row in range(self.config.rows):
                one_token(ctx, f"learner{row}", f"the learner's word 'learner{row}'")

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        c = self.config
        goes_on = bool(c.turns) and not ctx.evaluating
        rows = self._going_on(ctx) if goes_on else self._fresh(ctx)
        for row, sample in zip(rows, ctx.sample_ids(len(rows)).tolist()):
            row.sample = sample
        playing = rows
        while ctx.sum(len(playing)):  # each turn numbers its samples over all ranks
            self._decide(ctx, [row for row in playing if row.game.pending is None])
            for row in playing:
                self._act(ctx, row, c.turns if goes_on else c.longest)
            playing = [row for row in playing if not row.closed]
        for row in rows:
            if row.ended:
                self._count(ctx, row, goes_on)
        if goes_on and self.config.episodes:
            late = [
                row.game.earned for row in rows if row.ended and self.played[row.place] > 0.8 * self.config.episodes
            ]
            count = ctx.sum(len(late))
            self.late = [self.late[0] + ctx.sum(sum(late)), self.late[1] + count]
            if count:
                ctx.log("late_return", self.late[0] / self.late[1])
        return self._batch(ctx, rows)

    # -- which episodes

    def _fresh(self, ctx: Context) -> list[Row]:
        """New episodes: starts at even distances along the distribution of starts, from a random offset."""
        c = self.config
        offset = float(torch.rand((), generator=ctx.rng("starts"), dtype=torch.float64))
        chosen = [pick(self.starts, (i + offset) / c.rows) for i in range(c.rows)]
        every = [(i, chosen[i]) for i in ctx.shard(range(c.rows)) for _ in range(c.samples_per_start)]
        return [self._row(ctx, i, Game(start, self.starts[start][1])) for i, start in every]

    def _going_on(self, ctx: Context) -> list[Row]:
        """The running episodes, and a new one where an episode has ended; none for rows that have stopped."""
        rows = []
        for i in self.places:
            game = self.games[i]
            if self.config.episodes and self.played[i] >= self.config.episodes:
                continue
            if game is None:
                u = float(torch.rand((), generator=ctx.rng("start", i), dtype=torch.float64))
                start = pick(self.starts, u)
                game = self.games[i] = Game(start, self.starts[start][1])
            rows.append(self._row(ctx, i, game))
        return rows

    def _row(self, ctx: Context, place: int, game: Game) -> Row:
        if self.process.resumable:
            text = self.process.prompt(game.state)
        else:
            text = " ".join([self.process.prompt(self.starts[game.start][1]), *game.words])
        words = f"learner{place} {text}" if self.config.learners else text
        return Row(place, game, list(ctx.encode({"prompt": words}, answer=None).prompt_ids), text)

    def _count(self, ctx: Context, row: Row, goes_on: bool) -> None:
        """Count an episode that has ended."""
        ctx.log("episodes", 1)
        ctx.log("episode_return", row.game.earned)
        if goes_on:
            self.games[row.place] = None
            self.played[row.place] += 1

    # -- one turn

    def _decide(self, ctx: Context, rows: Sequence[Row]) -> None:
        """Let the policy choose the next word of these rows."""
        # every turn has its own sample ids, because the words of a row must not share random numbers
        sample_B = ctx.sample_ids(len(rows))
        if not rows:
            return
        room, longest = ctx.role_named(self.guide).context, max(rows, key=lambda row: len(row.prompt + row.ids))
        if len(longest.prompt + longest.ids) >= room:
            raise ExperimentError(
                f"an episode of {len(longest.actions)} actions fills all {room} positions of the model",
                "lower `longest`, or build the model with a larger context",
            )
        drawn = ctx.draw(
            [row.prompt + row.ids for row in rows],
            sample_B,
            sampling_=Sampling(temperature=self.config.temperature),
            max_new_tokens=1,
            model=self.guide,
            combine=self._distribution(ctx, rows),
        )
        said = zip(
            drawn.token_ids_BT[:, 0].tolist(),
            drawn.behaviour.logprobs_BT[:, 0].tolist(),
            drawn.behaviour.version_BT[:, 0].tolist(),
        )
        for row, (token, logprob, version) in zip(rows, said):
            row.game.pending = Choice(token, logprob, version)

    def _distribution(self, ctx: Context, rows: Sequence[Row]) -> Callable[[Mapping[str, NextToken]], Tensor] | None:
        """The logits to draw from, when they are not the policy's own."""
        c = self.config
        if c.epsilon is not None:
            epsilon, heads = c.epsilon, q_names(ctx, self.guide)
            allowed = [[self.token[a] for a in self.process.actions(row.game.state)] for row in rows]
            return lambda said: epsilon_greedy(lowest(said[self.guide], heads), allowed, epsilon) * c.temperature
        tilted = None if c.beta is None else guided(self.guide, q_names(ctx, self.guide), c.beta)
        if c.greedy:
            return lambda said: likeliest(tilted(said) if tilted else said[self.guide].logits_BV)
        return tilted

    def _act(self, ctx: Context, row: Row, most: int) -> None:
        """Record the chosen action, and take it if the row has a turn left."""
        game, choice = row.game, row.game.pending
        assert choice is not None
        row.actions.append(Said(len(row.ids), choice))
        row.ids.append(choice.token)
        here = row.actions[-1]
        outcomes = self.process.actions(game.state)
        here.allowed = [self.token[action] for action in outcomes]
        if len(row.actions) > most:
            row.closed = True
            return
        here.taken, game.pending = True, None
        action = self.word.get(choice.token)
        if action is None or action not in outcomes:  # not an action: the episode is over and keeps its rewards
            row.ended = row.closed = True
            return
        follows = self.process.step(game.state, action)
        which = 0
        if len(follows) > 1:
            generator = ctx.rng("chance", row.sample, len(row.actions))
            which = pick(follows, float(torch.rand((), generator=generator, dtype=torch.float64)))
        _, after, here.reward = follows[which]
        shown = self.process.shows(game.state, action, after)
        game.path.append([action, which])
        game.words += [action, shown] if shown else [action]
        game.state = after
        game.earned += here.reward
        row.ids += ctx.encode_turn((), shown) if shown else []
        if not self.process.actions(after):
            row.ended = row.closed = True

    def _batch(self, ctx: Context, rows: Sequence[Row]) -> Rollout:
        c = self.config
        built = Rollout.build(
            ctx,
            [row.encoded() for row in rows],
            source="policy",
            sample_B=torch.tensor([row.sample for row in rows], dtype=torch.long),
            group=[row // c.samples_per_start * c.samples_per_start for row in range(len(rows))],
            finish_reason=["stop" if row.ended else "length" for row in rows],
        )
        B, T = built.token_ids_BT.shape
        said = [(i, one) for i, row in enumerate(rows) for one in row.actions]
        at = (torch.tensor([i for i, _ in said], dtype=torch.long), torch.tensor([s.at for _, s in said], dtype=torch.long))  # fmt: skip

        def column(values: Sequence[Any], empty: Tensor) -> Tensor:
            return empty.index_put(at, torch.tensor(values, dtype=empty.dtype)) if said else empty

        allowed = [one.allowed + [-1] * (self.most - len(one.allowed)) for _, one in said]
        behaviour = Behaviour(
            logprobs_BT=column([one.choice.logprob for _, one in said], torch.zeros(B, T)),
            version_BT=column([one.choice.version for _, one in said], torch.zeros(B, T, dtype=torch.long)),
            sampling=Sampling(temperature=c.temperature),
        )
        return replace(built, behaviour=behaviour).with_extra(
            recorded_BT=column([one.reward for _, one in said], torch.zeros(B, T)),
            taken_BT=column([float(one.taken) for _, one in said], torch.zeros(B, T)),
            actions_BT=column(allowed, torch.full((B, T, self.most), -1)),
        )

    # -- the state that is saved

    def state_dict(self) -> dict[str, Any]:
        def packed(game: Game | None) -> dict[str, Any] | None:
            if game is None:
                return None
            pending = None if game.pending is None else vars(game.pending)
            return {"start": game.start, "path": game.path, "pending": pending}

        if not self.config.turns:
            return {}
        places = {str(i): {"game": packed(self.games[i]), "played": self.played[i]} for i in self.places}
        return {"places": places, "late": self.late}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        self.late = list(state["late"])
        places = state.get("places")
        if places is None:  # as an earlier release saved them
            places = {str(i): {"game": game, "played": state["played"][i]} for i, game in enumerate(state["games"])}
        for place, saved in places.items():
            self.played[int(place)] = saved["played"]
            self.games[int(place)] = None if saved["game"] is None else self._replay(saved["game"])

    def _replay(self, saved: Mapping[str, Any]) -> Game:
        game = Game(int(saved["start"]), self.starts[int(saved["start"])][1])
        for action, which in saved["path"]:
            before = game.state
            _, game.state, reward = self.process.step(before, action)[which]
            game.path.append([action, which])
            shown = self.process.shows(before, action, game.state)
            game.words += [action, shown] if shown else [action]
            game.earned += reward
        game.pending = None if saved["pending"] is None else Choice(**saved["pending"])
        return game


def epsilon_greedy(q_BV: Tensor, allowed: Sequence[Sequence[int]], epsilon: float) -> Tensor:
    """log π(a): 1 − ε shared by the actions of highest Q, ε shared by all allowed actions; −inf elsewhere."""
    allowed_BV = torch.zeros_like(q_BV, dtype=torch.bool)
    for row, tokens in enumerate(allowed):
        allowed_BV[row, list(tokens)] = True
    q_BV = q_BV.masked_fill(~allowed_BV, -torch.inf)
    best_BV = allowed_BV & (q_BV == q_BV.amax(-1, keepdim=True))
    evenly = [chosen_BV / chosen_BV.sum(-1, keepdim=True) for chosen_BV in (best_BV, allowed_BV)]
    return ((1 - epsilon) * evenly[0] + epsilon * evenly[1]).log()


def likeliest(logits_BV: Tensor) -> Tensor:
    """0 for the first of the highest, −inf elsewhere."""
    best_B1 = logits_BV.argmax(-1, keepdim=True)
    return torch.full_like(logits_BV, -torch.inf).scatter(-1, best_B1, 0.0)
