"""Laws for every component of a loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hookline.contract.check import hook_methods
from hookline.contract.component import docstring_of
from hookline.contract.fields import UpdateConfig
from hookline.errors import HooklineError, cause
from hookline.loop.loop import PhaseLoop
from hookline.testing.harness import Harness
from hookline.testing.lawbook.batches import apart
from hookline.testing.subject import Subject
from hookline.testing.suite import UNREACHED, Broken, NotApplicable, law, stands, unknown_names

HANDED = {
    "hookline_reward": ("rollout", "rollout"),
    "hookline_score": ("rollout", "rollout"),
    "hookline_advantage": ("scored", "score"),
    "hookline_update": ("batch", "advantage"),
    "hookline_judge": ("scored", "score"),
}
"""Hook → the name of the batch that the hook receives, and the stage that the batch has reached."""


@law("every", alone=True)
def documented(subject: Subject) -> str | None:
    """The class and each of its options have a docstring that says what they mean."""
    cls = subject.cls
    missing = [
        f"option '{field.alias or name}'" for name, field in cls.Config.model_fields.items() if not field.description
    ]
    if not docstring_of(cls):
        missing.insert(0, "the class")
    if missing:
        raise Broken(f"without a docstring: {', '.join(missing)}")
    unknown = unknown_names(cls)
    if unknown:
        raise Broken(f"`promises` or `exempt` names {', '.join(unknown)}, which is not a law")
    return None


@law("loop", name="stands", alone=True)
def stands_in_a_phase(subject: Subject) -> str | None:
    """The component takes steps in a real phase, on rows of uneven length with holes in their mask."""
    why = stands(subject)
    if why:
        raise Broken(why)
    return "beside " + ", ".join(s.instance for s in subject.harness().loop.planned.slots if s.cls is not subject.cls)


@law("loop")
def declared_figures(subject: Subject) -> str | None:
    """Every figure that the component logs is declared in `metrics`, with its formula."""
    harness = subject.harness()
    harness.undeclared.clear()
    harness.step(2)
    if harness.undeclared:
        raise Broken(f"logged, but not declared in `metrics`: {', '.join(sorted(harness.undeclared))}")
    empty = [metric.name for metric in harness.component.metrics if not metric.formula.strip()]
    if empty:
        raise Broken(f"declared without a formula: {', '.join(empty)}")
    return None


@law("reward", "wrapper", "advantage", "update", "feedback", alone=True)
def lent(subject: Subject) -> str | None:
    """The component changes no batch in place: later components read the same batch."""
    try:
        harness = subject.harness()
    except HooklineError:
        raise NotApplicable(UNREACHED) from None
    asked = 0
    for hook, options in hook_methods(subject.cls).items():
        if hook not in HANDED:
            continue
        name, stage = HANDED[hook]
        try:
            batch = harness.batch(stage)
            inner = (
                harness.batch("score" if hook == "hookline_score" else "advantage") if options.get("wrapper") else None
            )
        except HooklineError:
            raise NotApplicable(UNREACHED) from None
        watched = {**batch.tensors(), **({f"result.{n}": t for n, t in inner.tensors().items()} if inner else {})}
        before = {name: (tensor._version, tensor.clone()) for name, tensor in watched.items()}
        try:
            if options.get("wrapper"):
                harness.around(hook, inner if inner is not None else batch, **{name: batch})
            else:
                harness.ask(hook, **{name: batch})
        finally:
            changed = [n for n, t in watched.items() if t._version != before[n][0] or apart(t, before[n][1])]
            if changed:
                raise Broken(f"changed in place during {hook}: {', '.join(changed)}; work on a copy")
        asked += 1
    if not asked:
        raise NotApplicable("the component receives no batch")
    return None


@law("reward", "wrapper", "advantage", "update", "feedback")
def no_rows(subject: Subject) -> str | None:
    """A batch without rows is a valid step: every hook answers, logs only finite numbers, and no weight changes."""
    harness = subject.harness()
    weights = harness.weights()
    for hook, options in hook_methods(subject.cls).items():
        wraps = bool(options.get("wrapper"))
        if hook not in HANDED and not (wraps and hook == "hookline_rollout"):
            continue
        name, stage = HANDED.get(hook, ("rollout", "rollout"))
        empty = harness.batch(stage).rows([])
        result = {"hookline_rollout": "rollout", "hookline_score": "score"}.get(hook, "advantage")
        inner = harness.lent(result).rows([]) if wraps else empty
        harness.loop.phase.metrics.collect()
        try:
            answer = harness.around(hook, inner, **{name: empty}) if wraps else harness.ask(hook, **{name: empty})
        except Exception as err:
            raise Broken(f"{hook} fails on a batch without rows: {cause(err)}") from None
        if wraps and hook != "hookline_update" and not isinstance(answer, type(inner)):
            raise Broken(f"{hook} makes a {type(answer).__name__} of a {type(inner).__name__} without rows")
        figures, _ = harness.loop.phase.metrics.collect()
        figures |= answer if isinstance(answer, Mapping) else {}
        unsaid = [name for name, value in figures.items() if not math.isfinite(value)]
        if unsaid:
            raise Broken(f"{hook} logs figures that are not finite on a batch without rows: {', '.join(unsaid)}")
    moved = [name for name, value in harness.weights().items() if not torch.equal(value, weights[name])]
    if moved:
        raise Broken(f"weights changed on a batch without rows: {', '.join(moved[:3])}")
    return None


@law("loop")
def resume(subject: Subject) -> str | None:
    """Saved after two steps and loaded into a new process, the run goes on bit for bit as without interruption."""
    with subject.fresh() as harness:
        harness.step(2)
        harness.loop.checkpoint.save()
        answers = [len(harness.run.journal)]
        straight = after(harness, harness.loop, answers)

        def differing(keep: int) -> list[str]:
            """What differs if a process was killed when the journal held that many answers."""
            harness.forget(keep)
            again = after(harness, harness.resumed())
            return [
                f"{name} by {apart(value, again[name]):.1g} of its largest" if isinstance(value, Tensor) else name
                for name, value in straight.items()
                if not equal(value, again.get(name))
            ]

        at_save, midway, at_end = answers
        different, from_journal = differing(at_end), False
        if at_end > at_save and not differing(at_save):  # with every question asked again, all is equal
            different = different or differing(midway)  # killed between two steps: the second is asked again
            from_journal = bool(different)
    if from_journal:
        raise Broken(
            f"after a resume these differ: {', '.join(different[:4])}; ctx.each and ctx.once read the answers of lost steps from the "
            "journal and do not ask again, so what `ask` itself remembers is missing; remember it from the Term that ctx.each returns"
        )
    if different:
        raise Broken(
            f"after a resume these differ: {', '.join(different[:4])}; return the component's whole state from state_dict"
        )
    return None


def after(harness: Harness, loop: PhaseLoop, answers: list[int] | None = None) -> dict[str, Any]:
    """Two steps later: figures, weights, every component's state, and the judgements that were collected.

    answers: a list to which the length of the journal after each step is added.
    """
    figures: dict[str, float] = {}
    for _ in range(2):
        figures = harness.step(1, loop)
        if answers is not None:
            answers.append(len(harness.run.journal))
    collected = harness.run.collecting("harness")
    return {
        **figures,
        **harness.weights(loop),
        **{f"state of {name}": component.state_dict() for name, component in loop.hooks.components.items()},
        "the rows seen": loop.phase.scope.samples,
        "the judgements": collected.read_text().splitlines() if collected.exists() else [],
    }


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, in trees of tensors and plain values."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.shape == other.shape and apart(one, other) == 0
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other or (one != one and other != other))


CANDIDATES = (0.5, 0.0, 2.0, 0.05, 0.2, 1.0, 10.0, 1e3, 0.9, -1.0)


@law("update", "advantage", "wrapper", name="options")
def options_do_something(subject: Subject) -> str | None:
    """Each numeric option of the component changes what is learned; no option is accepted and ignored."""
    config = subject.cls.Config
    inherited = set(UpdateConfig.model_fields)
    own = [name for name, field in config.model_fields.items() if name not in inherited and values_of(field.annotation)]
    if not own:
        raise NotApplicable("the component has no numeric options of its own")
    known: dict[str, Any] = {}

    def learned(**options: Any) -> Any:
        """The weights after three steps, and the batch of the first step; None if the options are refused."""
        key = repr(sorted(options.items()))
        if key not in known:
            try:
                harness = subject.new(**options)
            except Exception:
                known[key] = None
                return None
            try:
                handed = harness.batch("advantage").tensors()
                harness.restore()
                harness.step(3)
                known[key] = {**handed, **harness.weights()}
            except Exception as err:  # a failure is an effect, too
                known[key] = cause(err)
            finally:
                harness.close()
        return known[key]

    plain = {"optimizer": "sgd"} if subject.kind == "update" and issubclass(config, UpdateConfig) else {}
    ignored = []
    for name in own:
        called = config.model_fields[name].alias or name
        if called not in subject.options and not matters(learned, subject, called, name, own, plain):
            ignored.append(called)
    if ignored:
        some = f"'{ignored[0]}' changes" if len(ignored) == 1 else f"{', '.join(map(repr, ignored))} change"
        raise Broken(f"{some} no weight and no column for any value; use the option or remove it")
    return None


def matters(learned: Any, subject: Subject, called: str, name: str, own: list[str], plain: dict[str, Any]) -> bool:
    """Whether two values of an option give different results, alone or with other options switched on."""
    field = subject.cls.Config.model_fields[name]
    for base in bases(subject, own, name, plain):
        first = None
        for value in (field.default, *values_of(field.annotation, field.default)):
            found = learned(**{**base, called: value})
            if found is None:
                continue
            if first is not None and not equal(first, found):
                return True
            first = found
    return False


def bases(subject: Subject, own: list[str], name: str, plain: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Options under which an option may have an effect: the defaults, everything switched on, each other option changed."""
    fields = subject.cls.Config.model_fields
    others = {fields[other].alias or other: fields[other] for other in own if other != name}
    values = {k: values_of(f.annotation, f.default) for k, f in others.items()}
    off = [k for k, f in others.items() if f.default in (0, None, False)]
    yield plain
    for which in (0, 3):
        yield {**plain, **{k: values[k][which % len(values[k])] for k in off}}
    for k in others:
        for value in values[k][:1] if k in off else values[k][:4]:
            yield {**plain, k: value}


def values_of(annotation: Any, default: Any = None) -> list[Any]:
    """Other values to try for an option, those most likely to matter first; none for text."""
    inner = [*getattr(annotation, "__args__", ())]
    choices = [choice for choice in inner if isinstance(choice, str)]
    if choices:
        return [choice for choice in choices if choice != default]
    kinds = {annotation, *inner}
    if bool in kinds:
        return [not default]
    if float in kinds:
        return [value for value in CANDIDATES if value != default]
    if int in kinds:
        return [value for value in (2, 1, 0, 3, 5, 100) if value != default]
    return []
