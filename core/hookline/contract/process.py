"""A finite decision process in words, which a task that is small enough for exact answers offers in addition to its
rows.

Neural code uses it as prompts and answers, tabular code as states and actions; both use the same object. A policy
starts from `prompt(state)`, answers with one action (a word), reads what the process adds (`shows`, outside the mask),
and so on until a state has no actions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from hookline.errors import PluginError

__all__ = ["Process", "State"]

State = Hashable
"""A state of a `Process`: any hashable value."""


class Process:
    """The transitions and rewards of a process, as pure functions of hashable states; nothing is sampled here."""

    resumable: bool = False
    """Whether `prompt` accepts every state, not only first ones, so that a prompt is enough to continue an episode."""

    def starts(self) -> Sequence[tuple[float, State]]:
        """(probability, state) of every first state."""
        raise NotImplementedError

    def prompt(self, state: State) -> str:
        """The text that the policy reads in a first state."""
        raise NotImplementedError

    def actions(self, state: State) -> Mapping[str, float]:
        """Word → probability under the task's reference policy; empty if the episode is over."""
        raise NotImplementedError

    def step(self, state: State, action: str) -> Sequence[tuple[float, State, float]]:
        """(probability, next state, reward) of every possible outcome of an action."""
        raise NotImplementedError

    def shows(self, before: State, action: str, after: State) -> str:
        """The text that the policy reads after an action; empty if there is nothing to add to the action."""
        return ""

    def play(self, start: State, words: Sequence[str]) -> tuple[float, bool]:
        """(sum of rewards, whether the episode ended) of a sequence of actions without random outcomes.

        A word that is not an action of the current state ends the episode; earlier rewards count.
        """
        state, total = start, 0.0
        for word in words:
            if word not in self.actions(state):
                return total, True
            outcomes = self.step(state, word)
            if len(outcomes) != 1:
                raise PluginError(
                    f"the outcome of '{word}' is random, so an answer alone has no value",
                    "use the rewards of played episodes",
                )
            [(_, state, reward)] = outcomes
            total += reward
        return total, not self.actions(state)
