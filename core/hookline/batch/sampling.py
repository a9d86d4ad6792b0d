"""How tokens are drawn: the options of a distribution, and what is left of it where tokens are cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hookline.errors import ExperimentError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from hookline.batch.lazily import torch

__all__ = ["KeptIds", "Sampling"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The distribution from which tokens were drawn, which log-probs refer to."""

    temperature: float = 1.0
    """Divides the logits, > 0; 1.0 does not change them, small values favour the likeliest tokens."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Of what top-k kept, keep the smallest set of tokens that has p of its probability; 1.0 keeps all."""
    min_p: float = 0.0
    """Keep the tokens that are at least this many times as likely as the likeliest; 0.0 keeps all."""
    repetition_penalty: float = 1.0
    """For tokens that the prompt or the answer has, divides logits above 0 and multiplies those below, > 0; 1.0 changes none."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that the answer has, −2 to 2."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a token once for each time that the answer has it, −2 to 2."""
    min_new_tokens: int = 0
    """An answer has at least this number of tokens before the one that ends it."""
    stop_strings: tuple[str, ...] = ()
    """An answer ends with the token that completes one of these in its text; the string stays in the answer."""
    stop_token_ids: tuple[int, ...] = ()
    """Ids of tokens that end an answer besides those of the tokenizer; the one that was drawn stays in the answer."""

    def __post_init__(self) -> None:
        strings = self.stop_strings
        object.__setattr__(self, "stop_strings", (strings,) if isinstance(strings, str) else tuple(strings))
        if not all(isinstance(text, str) and text for text in self.stop_strings):
            raise ExperimentError("a string of stop_strings is empty", "give texts of at least one character")
        ids = self.stop_token_ids
        object.__setattr__(self, "stop_token_ids", (ids,) if isinstance(ids, int) else tuple(ids))
        if not all(type(token) is int and token >= 0 for token in self.stop_token_ids):
            raise ExperimentError(
                f"stop_token_ids is {list(self.stop_token_ids)}", "give token ids, which are whole numbers from 0"
            )
        if not 0 < self.repetition_penalty < math.inf:
            raise ExperimentError(
                f"repetition_penalty is {self.repetition_penalty:g}", "give a number above 0; 1 changes nothing"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise ExperimentError(f"{name} is {getattr(self, name):g}", "give a number from -2 to 2; 0 changes nothing")
        if self.min_new_tokens < 0:
            raise ExperimentError(f"min_new_tokens is {self.min_new_tokens}", "give 0 or more")

    @property
    def truncated(self) -> bool:
        """Whether top-k, top-p or min-p removes tokens, so that ratios need the kept ids."""
        return self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0

    @property
    def penalises(self) -> bool:
        """Whether the tokens that a text has change the logits of its next one."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)

    @property
    def reshapes(self) -> bool:
        """Whether logits are changed before the temperature, by penalties or a minimum length."""
        return self.penalises or self.min_new_tokens > 0

    def ending(self, ends: tuple[int, ...], vocabulary: int) -> tuple[int, ...]:
        """The tokens that end an answer: `ends`, then `stop_token_ids`, each once.

        Raises ExperimentError for an id that a model of `vocabulary` tokens does not have.
        """
        odd = next((token for token in self.stop_token_ids if token >= vocabulary), None)
        if odd is not None:
            raise ExperimentError(
                f"stop_token_ids has {odd}, but the model's ids go from 0 to {vocabulary - 1}", "give ids of the model's tokenizer"
            )
        return tuple(dict.fromkeys((*ends, *self.stop_token_ids)))

    def check_length(self, max_new_tokens: int) -> None:
        """Raise ExperimentError for a minimum length that `max_new_tokens` does not allow."""
        if self.min_new_tokens > max_new_tokens:
            raise ExperimentError(
                f"min_new_tokens is {self.min_new_tokens}, but max_new_tokens is {max_new_tokens}", "lower the first or raise the second"
            )


@dataclass(frozen=True, eq=False)
class KeptIds:
    """For each token of a [B, T] block, in row-major order, the ids that top-k/top-p kept: `ids[offsets[n]:offsets[n+1]]`."""

    ids: Tensor
    """The kept ids of all tokens, concatenated, int64 [kept]."""
    offsets: Tensor
    """The index in `ids` where the ids of each token begin, and the total at the end, int64 [B·T + 1]."""

    def select(self, index_N: Tensor) -> KeptIds:
        """The kept ids of some of the tokens, by flat index b·T + t, int64 [N]."""
        counts = (self.offsets[1:] - self.offsets[:-1])[index_N]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        starts = self.offsets[index_N] - offsets[:-1]
        where = torch.arange(int(offsets[-1]), device=self.ids.device) + starts.repeat_interleave(counts)
        return KeptIds(self.ids[where], offsets)
