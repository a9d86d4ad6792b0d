"""Calls to hooks through pluggy. What pluggy ignores silently is an error here.

Each component is registered behind adapters that bind `ctx` to it, detect in-place changes of its arguments, check its
return value and add its name to any exception it raises.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from typing import Any, cast

import pluggy

from hookline.batch.lent import Lent
from hookline.batch.stages import Advantaged, Batch, Rollout, Scored
from hookline.contract.check import hook_methods
from hookline.contract.component import Component
from hookline.contract.feedback import Event
from hookline.contract.hookspecs import StageSpecs, hookimpl
from hookline.contract.judgement import Judgement
from hookline.errors import PluginError
from hookline.loop.checks import checked
from hookline.loop.context import PhaseContext
from hookline.plan.plan import PlannedPhase
from hookline.registry.blame import blame
from hookline.registry.slot import Slot

__all__ = ["Hooks", "ask"]

Lend = Callable[[Iterable[Any], str], Lent]
"""From a hook's arguments, and its name, to what it was lent."""


class Hooks:
    """The hooks of one phase, as typed calls."""

    def __init__(self, phase: PlannedPhase, score: Callable[[PhaseContext, Rollout], Scored], lend: Lend) -> None:
        """score: the core's answer to hookline_score. lend: watches what each hook is lent."""
        self.components: dict[str, Component] = {}
        self.rewards: dict[str, tuple[Component, Slot]] = {}
        """The named rewards, which are called one by one."""
        self.manager = pluggy.PluginManager("hookline")
        self.manager.add_hookspecs(StageSpecs)
        self.manager.register(_core_score(score), "core")
        for slot in phase.slots:
            for part in reversed([*slot.every()]):
                self.components[part.label] = part.component
            component, name = slot.component, slot.label
            if slot.kind == "reward":
                self.rewards[slot.instance] = (component, slot)
            else:
                brings = slot is not phase.update or phase.advantage_by is slot
                self.manager.register(_adapted(component, slot, lend, "" if brings else "hookline_advantage"), name)
        self.call: Any = self.manager.hook

    def rollout(self, ctx: PhaseContext) -> Rollout:
        return cast(Rollout, self.call.hookline_rollout(ctx=ctx))

    def score(self, ctx: PhaseContext, rollout: Rollout) -> Scored:
        return cast(Scored, self.call.hookline_score(ctx=ctx, rollout=rollout))

    def advantage(self, ctx: PhaseContext, scored: Scored) -> Advantaged:
        return cast(Advantaged, self.call.hookline_advantage(ctx=ctx, scored=scored))

    def update(self, ctx: PhaseContext, batch: Batch) -> Mapping[str, float]:
        return cast("Mapping[str, float]", self.call.hookline_update(ctx=ctx, batch=batch) or {})

    def judge(self, ctx: PhaseContext, scored: Rollout) -> list[tuple[str, Judgement | Event]]:
        return [pair for answer in self.call.hookline_judge(ctx=ctx, scored=scored) for pair in answer]


def _core_score(score: Callable[[PhaseContext, Rollout], Scored]) -> object:
    @hookimpl
    def hookline_score(ctx: PhaseContext, rollout: Rollout) -> Scored:
        return score(ctx, rollout)

    return types.SimpleNamespace(hookline_score=hookline_score)


def _adapted(component: Component, slot: Slot, lend: Lend, without: str = "") -> object:
    """An object with one adapter per hook method, for pluggy to register; `without`: a hook that another component answers."""
    found = types.SimpleNamespace()
    for name, options in hook_methods(type(component)).items():
        if name == without and not options.get("wrapper"):
            continue
        adapted = _wrapper if options.get("wrapper") else _answer
        setattr(found, name, adapted(component, slot, name, lend))
    return found


def _answer(component: Component, slot: Slot, hook: str, lend: Lend) -> Callable[..., Any]:
    method = getattr(component, hook)
    names = _arguments(method)

    @functools.wraps(method)
    def adapter(*arguments: Any) -> Any:
        return ask(component, slot, hook, dict(zip(names, arguments)), lend)

    return adapter


def ask(component: Component, slot: Slot, hook: str, arguments: Mapping[str, Any], lend: Lend) -> Any:
    """Call one implementation with the arguments it names; check its return value, and that what it was lent is unchanged."""
    method = getattr(component, hook)
    names = _arguments(method)
    given = {name: _bound(value, slot) for name, value in arguments.items() if name in names}
    lent = lend(arguments.values(), hook)
    with blame(slot, hook):
        answer = method(**given)
        _refuse_changes(lent, slot, hook)
        if not inspect.isawaitable(answer):
            return checked(answer, hook, slot, arguments)
        if hook == "hookline_reward":
            return _late(answer, lent, slot, hook)
        if inspect.iscoroutine(answer):
            answer.close()
        raise PluginError(
            f"{slot.offer}: {hook} returned a coroutine, which only hookline_reward may", "use ctx.wait(…) inside the hook"
        )


async def _late(answer: Awaitable[Any], lent: Lent, slot: Slot, hook: str) -> Any:
    """A coroutine's answer, with the same checks once it arrives."""
    with blame(slot, hook, late=True):
        said = await answer
        _refuse_changes(lent, slot, hook)
        return said


def _wrapper(component: Component, slot: Slot, hook: str, lend: Lend) -> Callable[..., Any]:
    method = getattr(component, hook)
    names = _arguments(method)

    @functools.wraps(method)
    def adapter(*arguments: Any) -> Generator[None, Any, Any]:
        given = {name: _bound(value, slot) for name, value in zip(names, arguments)}
        lent = lend(given.values(), hook)
        with blame(slot, hook):
            generator = method(**given)
            if next(generator, generator) is generator:
                raise PluginError(
                    "the wrapper returned without yielding, so the hook inside it was not called",
                    "write: result = yield; …; return result",
                )
        try:
            result = yield
        except BaseException:
            generator.close()
            raise
        lent.lend([result])
        with blame(slot, hook):
            try:
                generator.send(result)
            except StopIteration as stop:
                _refuse_changes(lent, slot, hook)
                return checked(stop.value, hook, slot, given | {"result": result})
            raise PluginError(f"{slot.offer}: {hook} yields twice", "a wrapper must yield once, then return the result")

    return adapter


def _bound(value: Any, slot: Slot) -> Any:
    return value.bound(slot) if isinstance(value, PhaseContext) else value


def _arguments(method: Callable[..., Any]) -> tuple[str, ...]:
    """The names that an implementation asks for."""
    function = getattr(method, "__func__", None)
    return _parameters(function)[1:] if function else tuple(inspect.signature(method).parameters)


@functools.lru_cache(maxsize=1024)
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _refuse_changes(lent: Lent, slot: Slot, hook: str) -> None:
    if setting := lent.setting_changed():
        raise PluginError(
            f"{slot.offer} changed {setting} during {hook}, for every other component too",
            "set it in a `with` block, or set it back before returning",
        )
    if changed := lent.changed():
        raise PluginError(
            f"{slot.offer} changed {changed} in place during {hook}; later hooks read the same",
            "work on a copy, or return a new column",
        )
