"""A finite decision process in words: what a task small enough for exact answers offers besides its rows.

Neural code meets it as prompts and answers, tabular code as states and actions; both are the same object. A policy starts
from `prompt(state)`, says one action (a word), is shown what the process adds (`shows`, outside the mask), and so on until
a state has no actions left.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from hookline.errors import PluginError

__all__ = ["Process", "State"]

State = Hashable
"""A state of a `Process`: any hashable value."""


class Process:
    """What happens next, and what it pays. Pure functions of hashable states; nothing is drawn here."""

    resumable: bool = False
    """Whether `prompt` names every state, not only first ones, so that it alone tells how an episode goes on."""

    def starts(self) -> Sequence[tuple[float, State]]:
        """(probability, state) of every first state."""
        raise NotImplementedError

    def prompt(self, state: State) -> str:
        """A first state in words, as the policy reads it."""
        raise NotImplementedError

    def actions(self, state: State) -> Mapping[str, float]:
        """Word → probability under the task's reference policy. Empty: the episode is over."""
        raise NotImplementedError

    def step(self, state: State, action: str) -> Sequence[tuple[float, State, float]]:
        """(probability, next state, reward) of everything that may follow an action."""
        raise NotImplementedError

    def shows(self, before: State, action: str, after: State) -> str:
        """What the policy is shown once an action was taken, in words; empty where the action says everything."""
        return ""

    def play(self, start: State, words: Sequence[str]) -> tuple[float, bool]:
        """(sum of rewards, whether the episode ended) of some actions, where no outcome is random.

        A word that is not an action there ends the episode; rewards paid so far count.
        """
        state, total = start, 0.0
        for word in words:
            if word not in self.actions(state):
                return total, True
            outcomes = self.step(state, word)
            if len(outcomes) != 1:
                raise PluginError(
                    f"what follows '{word}' is random, so an answer alone has no value",
                    "use the rewards of played episodes",
                )
            [(_, state, reward)] = outcomes
            total += reward
        return total, not self.actions(state)
