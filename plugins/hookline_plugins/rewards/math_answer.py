"""Whether an answer equals a reference as mathematics, by math-verify: `\\frac{1}{3}` is `1/3`. Needs `pip install 'hookline[math]'`.

math-verify limits its own time with signal.alarm, which fails outside the main thread, and hangs on some inputs all the same. It
therefore runs in a process of its own, in whose main thread the alarm works, and which is killed at `timeout`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

import hookline
from hookline import Component, Context, Metric, PluginError, Record, Rollout, Term, hookimpl
from hookline_plugins.rewards.function import Function


class MathAnswer(Component):
    """1 for an answer that equals the row's reference, 0 for another one. Rows whose reference cannot be read are not judged.

    Of an answer, what is boxed counts, then what is between dollars, then the last expression. 0.333 is not 1/3.
    """

    better = "higher"

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"solution": "answer", "ground_truth": "answer", "label_key": "answer"}
        answer: str = "answer"
        """The column of the reference; `a.b` looks into objects, e.g. `reward_model.ground_truth`."""
        timeout: float = Field(20.0, gt=0)
        """Seconds for each answer, after which its row is not judged."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if importlib.util.find_spec("math_verify") is None:
            raise PluginError("math-verify is not installed", "pip install 'hookline[math]'")
        options = {"path": str(Path(__file__).with_name("math_judge.py")), "function": "judge", "process": True}
        self.function = Function(
            Function.Config.model_validate({**options, "columns": {"answer": config.answer}, "timeout": config.timeout})
        )
        self.function.called = "math-answer"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Those of the function that it calls."""
        self.function.instance = self.instance
        return self.function.metrics

    def check_row(self, record: Record, where: str) -> None:
        self.function.check_row(record, where)

    def close(self) -> Awaitable[None] | None:
        return self.function.close()

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term | Awaitable[Term]:
        self.function.instance = self.instance
        return self.function.hookline_reward(ctx, rollout)
