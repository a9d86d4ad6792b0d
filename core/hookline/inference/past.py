"""What unfinished answers have so far: the tokens that penalties count, and the text in which stop strings are looked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hookline.batch.penalties import Seen, penalised
from hookline.batch.stages import Sampling

__all__ = ["Past", "Stops"]

MARGIN = 4
"""Tokens before a string that are read with it: the first of what is read may be written in another way."""


class Past:
    """The tokens of each text, in columns; free columns repeat the first token of a prompt, with its count, which changes nothing."""

    def __init__(self, prompts: Sequence[Sequence[int]], sampling: Sampling, width: int, device: torch.device) -> None:
        """width: the most tokens of any text."""
        self.sampling, self.device = sampling, device
        self.ids_RL = torch.empty(len(prompts), width, dtype=torch.long, device=device)
        self.count_RL, self.end_R = torch.zeros_like(self.ids_RL), torch.zeros_like(self.ids_RL[:, 0])
        self.begin(torch.arange(len(prompts), device=device), prompts)

    def begin(self, place_N: Tensor, prompts: Sequence[Sequence[int]]) -> None:
        """Begin other texts in some places."""
        if not len(prompts):
            return
        if self.sampling.repetition_penalty == 1:
            prompts = [prompt[:1] for prompt in prompts]
        width = self.ids_RL.shape[1]
        rows = [[*prompt, *[prompt[0]] * (width - len(prompt))] for prompt in prompts]
        self.ids_RL[place_N] = torch.tensor(rows, device=self.device)
        self.count_RL[place_N] = 0
        self.end_R[place_N] = torch.tensor([len(prompt) for prompt in prompts], device=self.device)

    def reshaped(self, logits_RV: Tensor, at_R: Tensor, ends: Sequence[int]) -> Tensor:
        """The logits that `sampling` says. at_R: how many tokens each answer has."""
        seen = Seen(torch.arange(len(self.ids_RL), device=self.device)[:, None], self.ids_RL, self.count_RL)
        return penalised(logits_RV, self.sampling, seen, at_R < self.sampling.min_new_tokens, ends)

    def add(self, ids_R: Tensor) -> None:
        """Each answer has one more token; answers that ended earlier may go on."""
        same_RL = self.ids_RL == ids_R[:, None]
        self.count_RL += same_RL
        now_R = (self.count_RL * same_RL).amax(1).clamp(min=1)
        at_R1 = self.end_R.clamp(max=self.ids_RL.shape[1] - 1)[:, None]
        self.ids_RL.scatter_(1, at_R1, ids_R[:, None])
        self.count_RL.scatter_(1, at_R1, now_R[:, None])
        self.end_R = self.end_R + 1

    def keep(self, index_N: Tensor) -> None:
        self.ids_RL, self.count_RL, self.end_R = self.ids_RL[index_N], self.count_RL[index_N], self.end_R[index_N]


class Stops:
    """Where an answer ends because its text contains a string, which may begin and end within tokens."""

    def __init__(self, sampling: Sampling, text: Callable[[Sequence[int]], str]) -> None:
        self.strings, self.least, self.text = sampling.stop_strings, sampling.min_new_tokens, text
        self.reach = max(len(string.encode()) for string in self.strings) + MARGIN
        self.silent: dict[int, bool] = {}

    def found(self, ids: Sequence[int], known: int = 0) -> int | None:
        """The number of tokens with which the answer ends, or None. known: how many of the ids do not end it."""
        known = max(known, self.least)
        if len(ids) <= known or not self._near(ids, self.reach + len(ids) - known):
            return None
        before = len(self.text(ids[: self.least]).rstrip("\ufffd"))
        for n in range(known + 1, len(ids) + 1):
            text = self.text(ids[:n])
            if any(text.find(string, max(0, before - len(string) + 1)) >= 0 for string in self.strings):
                return n
        return None

    def _near(self, ids: Sequence[int], tokens: int) -> bool:
        """Whether the text of the last tokens contains a string; those without a text of their own are not counted."""
        start = len(ids)
        while start and tokens:
            start -= 1
            tokens -= not self._is_silent(ids[start])
        tail = self.text(ids[start:])
        return any(string in tail for string in self.strings)

    def _is_silent(self, token: int) -> bool:
        if token not in self.silent:
            self.silent[token] = not self.text([token])
        return self.silent[token]
