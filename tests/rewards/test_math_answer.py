"""`math-answer`: references and answers as people write them, in a process that is killed when math-verify hangs."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from asking import Asked, put

from hookline import PluginError
from hookline_plugins.rewards.math_answer import MathAnswer

ROWS = [
    ("1/3", "so it is $\\frac{1}{3}$", 1.0),
    ("\\frac{1}{3}", "\\boxed{1/3}", 1.0),
    ("1/3", "it is 0.333", 0.0),
    (72, "in all 72", 1.0),
    ("48 and 24 is #### 72", "#### 72", 1.0),
    ("12", "12, or rather \\boxed{13}", 0.0),
    ("x+1", "$1+x$", 1.0),
    ("(1,2)", "$(1, 2)$", 1.0),
    ("$\\sqrt{4}$", "2", 1.0),
    ("3", "I do not know", 0.0),
    ("", "3", None),
]


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed")
def test_answers() -> None:
    made = MathAnswer(MathAnswer.Config(answer="meta.answer"))
    made.instance = "math-answer"
    _ = made.metrics
    rows = [({"prompt": "x", "meta": {"answer": gold}}, said) for gold, said, _ in ROWS]
    try:
        assert put(made.function, rows, Asked()).values == [value for _, _, value in ROWS]  # type: ignore[arg-type]
        assert put(made, rows[:2], Asked()).values == [1.0, 1.0]  # type: ignore[arg-type]
    finally:
        made.close()
    assert "math_verify" not in sys.modules


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "math_verify" else find(name))
    with pytest.raises(PluginError) as err:
        MathAnswer(MathAnswer.Config())
    assert str(err.value) == "math-verify is not installed → pip install 'hookline[math]'"
