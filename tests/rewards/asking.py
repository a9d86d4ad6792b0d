"""A reward function asked about rows written by hand, without a run: `ask(path, name, rows, …)`."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from hookline import Encoded, Rollout, Term
from hookline_plugins.rewards.function import Function

USERS = Path(__file__).parent / "users"


class Words:
    """A tokenizer of words; `<…>` are special tokens."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def ids(self, text: str) -> list[int]:
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return [self.words.index(word) for word in text.split()]

    def decode(self, ids: Any, special: bool = False) -> str:
        words = [self.words[i] for i in ids]
        return " ".join(word for word in words if special or not word.startswith("<"))


class Asked:
    """What a function answered: `values` (None: not judged), `figures` and `notices`."""

    def __init__(self) -> None:
        self.values: list[float | None] = []
        self.figures: dict[str, float] = {}
        self.notices: list[str] = []
        self.journal: dict[Any, Any] = {}


def rollout_of(rows: list[tuple[dict[str, Any], str]]) -> Rollout:
    """Records, each with the answer that was drawn to it."""
    words = Words()

    def text(record: dict[str, Any]) -> str:
        prompt = record.get("prompt", record.get("messages"))
        return prompt if isinstance(prompt, str) else " ".join(message["content"] for message in prompt)

    encoded = [
        Encoded(prompt_ids=words.ids(text(record)), answer_ids=words.ids(f"{said} <end>"), record=record) for record, said in rows
    ]
    numbers = SimpleNamespace(tokenizer=words, sample_ids=lambda n: torch.arange(100, 100 + n))
    return Rollout.build(numbers, encoded, source="policy")


def function(path: Path | str, name: str, **options: Any) -> Function:
    made = Function(Function.Config.model_validate({"path": str(USERS / path), "function": name, **options}))
    made.instance = name
    _ = made.metrics
    return made


def ask(
    path: Path | str, name: str, rows: list[tuple[dict[str, Any], str]], *, asked: Asked | None = None, step: int = 0, **options: Any
) -> Asked:
    made, asked = function(path, name, **options), asked or Asked()
    try:
        return put(made, rows, asked, step)
    finally:
        made.close()


def put(made: Function, rows: list[tuple[dict[str, Any], str]], asked: Asked, step: int = 0) -> Asked:
    rollout = rollout_of(rows)

    async def once(key: Any, fn: Any) -> Any:
        if key not in asked.journal:
            asked.journal[key] = await fn()
        return asked.journal[key]

    ctx: Any = SimpleNamespace(
        step=step,
        steps=10,
        rng=lambda *key: torch.Generator().manual_seed(7 + step),
        log=lambda name, value, count=1: asked.figures.update({name: value}),
        run=SimpleNamespace(notice=asked.notices.append),
        once=once,
    )
    answer: Any = made.hookline_reward(ctx, rollout)
    if inspect.isawaitable(answer):

        async def wait() -> Any:
            return await answer

        answer = asyncio.run(wait())
    assert isinstance(answer, Term)
    assert answer.ok_B is not None
    asked.values = [round(float(v), 6) if ok else None for v, ok in zip(answer.value, answer.ok_B)]
    return asked
