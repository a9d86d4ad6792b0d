"""Laws for environments: an episode is complete, ends, and is the same under the same seed."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence

import torch

from hookline.contract.environment import Environment, Turn
from hookline.contract.fields import marked
from hookline.errors import DataError
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law
from hookline.testing.surroundings import own_rows

SEEDS = 12
MOST = 1000
"""Number of turns after which an episode must be over."""
REPLIES = ("", "yes", "a b c", '{"name": "look", "arguments": {}}', "42", "<|endoftext|>", "ünïcödé 🙂")


def played(subject: Subject, seed: int, replies: Sequence[str] = REPLIES) -> list[Turn]:
    """The turns of one episode, including the first; replies are repeated when they are used up.

    The episode begins on a row of the data that the environment's config names, or on one of the suite's own rows.
    """
    harness = subject.harness()
    environment = harness.slot.component.another()
    assert isinstance(environment, Environment)
    named = marked(environment.config, "data").values()
    record = next((harness.loop.ctx.rows(name).records[0] for name in named), own_rows()[0])

    async def play() -> list[Turn]:
        turns = [await environment.reset(record, torch.Generator().manual_seed(seed))]
        while not turns[-1].over and len(turns) < MOST:
            turns.append(await environment.step(replies[len(turns) % len(replies)]))
        return turns

    try:
        environment.setup(harness.loop.ctx.bound(harness.slot))
        return harness.runner.run(play())
    except DataError as err:
        raise NotApplicable(f"the environment accepts none of the rows tested here: {err}") from None
    finally:
        closed = environment.close()
        if closed is not None:
            harness.runner.run(_awaited(closed))


async def _awaited(closed: Awaitable[None]) -> None:
    await closed


@law("environment", alone=True)
def episodes_repeat(subject: Subject) -> str | None:
    """With the same seed, the same replies lead to the same turns, also in another instance."""
    for seed in range(SEEDS):
        one, other = played(subject, seed), played(subject, seed)
        if one != other:
            number = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
            raise Broken(f"turn {number} differs the second time; draw only from the generator passed to reset")
    return f"{SEEDS} episodes"


@law("environment", alone=True)
def episodes_end(subject: Subject) -> str | None:
    """Every episode ends: for any replies, some turn is terminated or truncated."""
    for reply in REPLIES:
        if not played(subject, 5, [reply])[-1].over:
            raise Broken(f"the episode does not end in {MOST} replies of {reply!r}; end it with truncated=True")
    return None


@law("environment", alone=True)
def whole_turns(subject: Subject) -> str | None:
    """A turn has one of messages, text or token ids, and the rewards of replies are finite."""
    for number, turn in enumerate(played(subject, 7)):
        ways = [name for name in ("messages", "text") if getattr(turn, name)]
        ways += ["token_ids"] if turn.token_ids is not None else []
        if len(ways) > 1 or (not ways and not turn.over):
            raise Broken(f"turn {number} has {' and '.join(ways) or 'no messages, no text and no token_ids'}")
        wrong = [name for name, value in turn.rewards.items() if not math.isfinite(value)]
        if wrong:
            raise Broken(
                f"turn {number} has the reward '{wrong[0]}' = {turn.rewards[wrong[0]]}; rewards must be finite"
            )
        if any("role" not in message or "content" not in message for message in turn.messages):
            raise Broken(f"turn {number} has a message without `role` or `content`")
    return None
