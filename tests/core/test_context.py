"""The page that plugin authors read, and the object that hooks are given, say the same; a scope changes what they answer."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hookline
from hookline.contract import context as page
from hookline.loop.context import PhaseContext
from hookline.loop.loop import PhaseLoop
from hookline.loop.scope import Evaluation

Lab = Callable[..., PhaseLoop]
NAMES = [name for name in vars(page.Context) if not name.startswith("_")]


def test_what_the_page_describes_is_what_hooks_are_given() -> None:
    assert hookline.Context is page.Context
    for name in NAMES:
        told, given = inspect.getattr_static(page.Context, name), inspect.getattr_static(PhaseContext, name)
        assert isinstance(told, property) == isinstance(given, property), name
        if not isinstance(told, property):
            ours, theirs = inspect.signature(given).parameters.values(), inspect.signature(told).parameters.values()
            assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs], name
            assert inspect.iscoroutinefunction(told) == inspect.iscoroutinefunction(given), name


def test_every_name_of_the_page_says_what_it_does() -> None:
    silent = [name for name in NAMES if not inspect.getdoc(inspect.getattr_static(page.Context, name))]
    assert not silent


def test_the_contract_imports_nothing_above_it_annotations_included() -> None:
    above = {
        "config",
        "registry",
        "plan",
        "models",
        "data",
        "training",
        "inference",
        "runs",
        "loop",
        "study",
        "testing",
    }
    for path in Path(page.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            rooms = {module.split(".")[1] for module in modules if module.startswith("hookline.")}
            assert not rooms & above, f"{path.name} line {getattr(node, 'lineno', 0)}"


def test_an_evaluation_moves_nothing_of_the_phase(lab: Lab, sampled: dict[str, Any]) -> None:
    ctx = lab(rollout=sampled, reward="length", advantage="gae", update="ppo").ctx
    ctx.sample_ids(5)
    ctx.training.step = 3
    view = ctx.scoped(Evaluation(ctx.training, "held"))
    assert (view.evaluating, view.step, view.phase, view.sample_ids(2).tolist()) == (True, 0, "phase", [0, 1])
    assert view.key("x", 1) == (5, "evaluation", "held", 0, "core", "x", 1)
    assert view.take(4, 3) == [0, 1, 2]
    view.log("no such figure", 1.0)
    assert (ctx.evaluating, ctx.step, ctx.sample_ids(1).tolist()) == (False, 3, [5])
    assert ctx.key("x", 1) == (5, "phase", 3, "core", "x", 1)
    assert sorted(ctx.take(3, 3)) == [0, 1, 2]


def test_a_step_pauses_until_the_last_of_several_waits_has_ended(lab: Lab, sampled: dict[str, Any]) -> None:
    ctx = lab(rollout=sampled, reward="length", advantage="gae", update="ppo").ctx
    stopping = ctx._resources.stopping

    async def waits() -> list[bool]:
        short, long = (asyncio.ensure_future(ctx.pause(seconds)) for seconds in (0.01, 0.1))
        await short
        found = [bool(stopping.pausing)]
        await long
        return [*found, bool(stopping.pausing)]

    assert asyncio.run(waits()) == [True, False]
