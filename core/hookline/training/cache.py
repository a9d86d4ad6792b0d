"""Token statistics of a step, each computed once per version of the weights."""

from __future__ import annotations

from collections.abc import Sequence

from hookline.batch.stages import Batch
from hookline.contract.loss import Stats, Support
from hookline.errors import PluginError
from hookline.models.role import Role
from hookline.training.statistics import statistics, truncated

__all__ = ["StatsCache"]


class StatsCache:
    """Figures without gradient, keyed by what they depend on: tokens, mask, behaviour, support and role."""

    def __init__(self, micro_tokens: int = 16384) -> None:
        self.micro_tokens = micro_tokens
        """Tokens in one forward pass, padding included."""
        self._held: dict[tuple[object, ...], tuple[tuple[object, ...], int, Stats]] = {}

    def clear(self) -> None:
        self._held.clear()

    def get(self, role: Role, batch: Batch, want: Sequence[str], support: Support) -> Stats:
        """Figures per token, [B, T] float32; missing ones are computed together."""
        tokens = (batch.prompt_ids_BP, batch.prompt_length_B, batch.token_ids_BT, batch.mask_BT)
        of = (*tokens, getattr(batch, "behaviour", None), role)
        # the cache holds on to what it is about, so that an id means one thing
        place = (*map(id, of), support == "whole" and truncated(batch, want))
        _, version, known = self._held.get(place, (of, role.version, Stats()))
        changed = next((name for name, tensor in known.items() if tensor._version), None)
        if changed:
            raise PluginError(
                f"the statistic '{changed}' was changed in place",
                "work on a copy, because other components read it later",
            )
        if version != role.version:
            known = Stats()
        missing = [name for name in want if name not in known]
        if missing:
            fresh = statistics(role, batch, missing, self.micro_tokens, support)
            known = Stats({**known, **{name: value.clone() for name, value in fresh.items()}})
            self._held[place] = (of, role.version, known)
        return Stats({name: known[name] for name in want})
