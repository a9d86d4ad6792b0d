"""Rows made by hand, a context that knows means and figures, and calling one component with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from hookline import Advantaged, Behaviour, Component, Rollout, Sampling, Scored


def rows(reward_BT: Sequence[Sequence[float]] | Tensor, *columns: Any, **more: Any) -> Scored:
    """Answers with these rewards per token; the rest is as for `answers`."""
    reward = torch.as_tensor(reward_BT, dtype=torch.float32)
    return answers(*reward.shape, *columns, **more).scored(reward)


def answers(
    B: int,
    T: int,
    group: Sequence[int] | None = None,
    mask: Sequence[Sequence[int]] | None = None,
    *,
    logprobs_BT: Tensor | None = None,
    version: int = 0,
    sampling: Sampling | None = None,
    finish: Sequence[str] | None = None,
    first: int = 0,
    tokens: Tensor | None = None,
    records: Sequence[Mapping[str, Any]] | None = None,
) -> Rollout:
    """Rows of T tokens; groups are 0 … B−1 and every token is chosen unless said otherwise."""
    mask_BT = torch.ones(B, T, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    positions = torch.arange(1, T + 1)
    drawn = torch.full((B, T), -1.0) if logprobs_BT is None else logprobs_BT
    return Rollout(
        prompt_ids_BP=torch.ones(B, 2, dtype=torch.long),
        prompt_length_B=torch.full((B,), 2),
        token_ids_BT=torch.arange(B * T).view(B, T) + 3 if tokens is None else tokens,
        length_B=(mask_BT * positions).amax(1),
        mask_BT=mask_BT,
        group_B=torch.arange(B) if group is None else torch.tensor(group),
        sample_B=torch.arange(B) + first,
        records=tuple(records or [{"prompt": f"row {i}"} for i in range(B)]),
        decode=lambda ids, special=False: " ".join(map(str, ids)),
        finish_reason=tuple(finish or ["stop"] * B),
        source=("policy",) * B,
        behaviour=Behaviour(
            logprobs_BT=torch.where(mask_BT, drawn.float(), 0.0),
            version_BT=torch.full((B, T), version),
            sampling=sampling or Sampling(),
        ),
    )


class Ctx:
    """As much of a context as these components ask for; what they log stands in `figures`."""

    def __init__(self, version: int = 0, **logprobs_BT: Tensor) -> None:
        self.figures: dict[str, float] = {}
        self.policy = SimpleNamespace(version=version)
        self.logprobs_BT = logprobs_BT
        self.tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))
        self.draws = 0

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        self.figures[name] = float(value)

    def sum(self, x: Tensor | float) -> float:
        return float(x.double().sum()) if isinstance(x, Tensor) else float(x)

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def mean(self, x: Tensor) -> float:
        return self.sum(x) / max(1, x.numel())

    def role_named(self, name: str) -> Any:
        return self.policy

    def stats(self, batch: Any, model: str = "policy", want: Sequence[str] = ("logprobs",), support: Any = None) -> Any:
        return SimpleNamespace(logprobs_BT=torch.where(batch.mask_BT, self.logprobs_BT[model].float(), 0.0))

    def rng(self, purpose: str, *ids: object) -> torch.Generator:
        self.draws += 1
        return torch.Generator().manual_seed(self.draws)


def made(cls: type[Component], **options: Any) -> Any:
    """A component as the core makes it."""
    component = cls(cls.Config.model_validate(options))
    component.instance = "mine"
    return component


def around(component: Component, hook: str, result: Any, ctx: Ctx | None = None) -> Any:
    """What a wrapper makes of what it stands around."""
    import inspect

    method = getattr(component, hook)
    given = {"ctx": ctx or Ctx(), "rollout": result, "scored": result}
    generator = method(**{name: given[name] for name in inspect.signature(method).parameters})
    next(generator)
    try:
        generator.send(result)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it yielded twice")


def advantage(component: Any, scored: Scored) -> Tensor:
    import inspect

    given = {"ctx": Ctx(), "scored": scored}
    said = component.hookline_advantage(
        **{n: given[n] for n in inspect.signature(component.hookline_advantage).parameters}
    )
    assert isinstance(said, Advantaged)
    return said.advantage_BT
