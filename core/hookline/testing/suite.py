"""Laws, verdicts, and the two ways to test the laws: `check(Component)`, and `conformance(Component)` for pytest."""

from __future__ import annotations

import contextlib
import inspect
import io
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hookline.contract.check import KIND_OF_HOOK, check_class, hook_methods, kind_of
from hookline.contract.component import Component
from hookline.contract.kinds import KINDS, taught
from hookline.errors import HooklineError, PluginError, ServiceError, cause, nearest
from hookline.registry.offers import Offer
from hookline.testing import generators
from hookline.testing.subject import Subject, offer_of

__all__ = ["Broken", "Law", "NotApplicable", "NotTried", "Report", "Verdict", "check", "conformance", "law", "laws"]

UNREACHED = "see `stands`: the component takes no step here"
SHARED = "see `own-randomness`: two answers of the component cannot be compared"
WAITING = {
    UNREACHED: "a component that completes a step; see `stands`",
    SHARED: "a component that leaves the global random generators alone; see `own-randomness`",
}
"""Why a law waits for another law, and what it needs."""


class Broken(AssertionError):
    """Raised if a law does not hold; the message says what differed, and by how much."""


class NotApplicable(Exception):
    """Raised if a law does not apply to this component; the message says why."""


class NotTried(Exception):
    """Raised if a law applies to this component but could not be tested; the message says what was missing."""


@dataclass(frozen=True)
class Law:
    """A property that every component of certain kinds must have."""

    name: str
    """The law's name, as `promises` and `exempt` use it."""
    groups: tuple[str, ...]
    """The groups of laws in the table of kinds (`Kind.laws`) that the law belongs to, or `every`."""
    meaning: str
    """What the law requires, in a line."""
    test: Callable[[Subject], str | None]
    """Tests a subject; may return a remark, and raises `Broken`, `NotApplicable` or `NotTried`."""
    claimed: bool = False
    """Whether the law applies only to components that name it in `promises`."""
    alone: bool = False
    """Whether the law also applies to a component that takes no step, or draws from global random generators."""


@dataclass(frozen=True)
class Verdict:
    """The result of one law for one component."""

    law: str
    """The law's name."""
    meaning: str
    """What the law requires, in a line."""
    outcome: Literal["pass", "fail", "not applicable", "not tried"]
    """Whether the component keeps the law; `not tried` if the law applies but nothing could be tested."""
    detail: str = ""
    """What differed and by how much, or why the law does not apply or was not tried."""


_laws: list[Law] = []


def law(*groups: str, name: str = "", claimed: bool = False, alone: bool = False) -> Callable[[Any], Any]:
    """Make a law of a function: the docstring's first line is the law's meaning, the function's name is its name.

    groups: the groups of laws in the table of kinds that the law belongs to; `every` for all components; by default `loop`.
    """

    def declare(test: Callable[[Subject], str | None]) -> Callable[[Subject], str | None]:
        meaning = (inspect.getdoc(test) or "").splitlines()[0]
        called = name or test.__name__.replace("_", "-")
        _laws.append(Law(called, groups or ("loop",), meaning, test, claimed, alone))
        return test

    return declare


def every_law() -> list[Law]:
    """All laws, in the order in which they are tested; importing their modules declares them."""
    from hookline.testing.lawbook import common, randomness, apart, updates, learning, columns, credit  # noqa: F401, I001
    from hookline.testing.lawbook import rewards, services, rollouts, feedback  # noqa: F401
    from hookline.testing.lawbook import trackers, tasks, engines, environments, formats, commands, stores  # noqa: F401

    return _laws


def facets(cls: type[Component], kind: str) -> set[str]:
    """The groups of laws that apply: those of the kind, of an advantage that an update brings, and of wrapped hooks."""
    found = {"every", *KINDS[kind].laws}
    for name, options in hook_methods(cls).items():
        if options.get("wrapper"):
            found |= set(KINDS["wrapper"].laws)
        elif name in KINDS[kind].also:
            found |= set(KINDS[KIND_OF_HOOK[name]].laws)
    return found


def laws(cls: type[Component], kind: str = "") -> list[Law]:
    """The laws that apply to a component, each once."""
    mine = facets(cls, kind or kind_of(cls))
    promised = set(getattr(cls, "promises", ()))
    found: dict[str, Law] = {}
    for one in every_law():
        if mine & set(one.groups) and (not one.claimed or one.name in promised):
            name = one.name if one.name not in found else f"{one.name}-of-{(mine & set(one.groups)).pop()}"
            found.setdefault(name, Law(name, one.groups, one.meaning, one.test, one.claimed, one.alone))
    return list(found.values())


@dataclass(frozen=True)
class Report:
    """Every law's verdict on one component."""

    offer: Offer
    """The component: its kind, name, distribution and version."""
    options: Mapping[str, Any]
    """The options that the component was tested with; other options have their defaults."""
    verdicts: tuple[Verdict, ...]
    """One verdict per law, in the order in which the laws were tested."""

    @property
    def broken(self) -> list[Verdict]:
        """The verdicts of the laws that the component breaks."""
        return [verdict for verdict in self.verdicts if verdict.outcome == "fail"]

    @property
    def untried(self) -> list[Verdict]:
        """The verdicts of the laws that apply but could not be tested."""
        return [verdict for verdict in self.verdicts if verdict.outcome == "not tried"]

    @property
    def passed(self) -> bool:
        """Whether every law that applies was tested, and none is broken."""
        return not self.broken and not self.untried

    @property
    def exit_code(self) -> int:
        """The exit code of `hookline plugins check`: 5 if a law is broken, 7 if a service did not answer, else 0."""
        return PluginError.exit_code if self.broken else ServiceError.exit_code if self.untried else 0

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "kind": self.offer.kind,
            "name": self.offer.name,
            "distribution": self.offer.distribution,
            "version": self.offer.version,
            "options": dict(self.options),
            "passed": self.passed,
            "laws": [asdict(verdict) for verdict in self.verdicts],
        }

    def __str__(self) -> str:
        marks = {"pass": "✓", "fail": "✗", "not applicable": "·", "not tried": "?"}
        width = max(len(verdict.law) for verdict in self.verdicts)
        lines = [str(self.offer), ""]
        reached = [verdict for verdict in self.verdicts if verdict.detail not in WAITING]
        said: set[str] = set()
        for verdict in reached:
            lines.append(f"{marks[verdict.outcome]} {verdict.law:<{width}}  {verdict.meaning}")
            if verdict.detail and verdict.outcome != "pass" and verdict.detail not in said:
                lines.append(f"  {'':<{width}}  {verdict.detail}")
            said |= {verdict.detail} if verdict.outcome == "not tried" else set()
        counts = {outcome: sum(v.outcome == outcome for v in reached) for outcome in marks}
        kept = f"{counts['pass']} law{'' if counts['pass'] == 1 else 's'} kept"
        lines += ["", f"{kept}, {counts['fail']} broken, {counts['not applicable']} not applicable"]
        lines[-1] += f", {counts['not tried']} not tried" if counts["not tried"] else ""
        for why, what in WAITING.items():
            if waiting := sum(verdict.detail == why for verdict in self.verdicts):
                lines.append(f"{waiting} more law{' needs' if waiting == 1 else 's need'} {what}")
        return "\n".join(lines)


@contextlib.contextmanager
def opened(target: type[Component] | Offer, options: Mapping[str, Any]) -> Iterator[Subject]:
    """A subject in a temporary folder, which is removed afterwards."""
    offer = target if isinstance(target, Offer) else offer_of(target)
    with tempfile.TemporaryDirectory() as folder, Subject(offer, options, Path(folder)) as subject:
        yield subject


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Run on one thread, which is fastest for a tiny model, and without the harness's own notices."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        torch.set_num_threads(threads)


def judge(one: Law, subject: Subject) -> Verdict:
    """One law's verdict."""
    exempt = dict(getattr(subject.cls, "exempt", {}))
    if one.name in exempt:
        return Verdict(one.name, one.meaning, "not applicable", f"the component says: {exempt[one.name]}")
    with quietly():
        try:
            if not one.alone and stands(subject):
                raise NotApplicable(UNREACHED)
            if "every" not in one.groups and (why := unjudged(subject)):
                raise NotTried(why)
            if not one.alone and "own-randomness" not in exempt and shared_generators(subject):
                raise NotApplicable(SHARED)
            return Verdict(one.name, one.meaning, "pass", one.test(subject) or "")
        except NotApplicable as why_not:
            return Verdict(one.name, one.meaning, "not applicable", str(why_not))
        except NotTried as missing:
            return Verdict(one.name, one.meaning, "not tried", str(missing))
        except (Broken, HooklineError) as err:
            return Verdict(one.name, one.meaning, "fail", str(err))
        except Exception as err:
            at = traceback.extract_tb(err.__traceback__)[-1]
            where = f"{Path(at.filename).name}:{at.lineno}"
            return Verdict(one.name, one.meaning, "fail", f"{cause(err)} ({where}, in {at.name})")


def stands(subject: Subject) -> str:
    """Why a component fails to take a step in a real phase; empty if it takes one."""
    if subject.fails is None:
        subject.fails = ""
        if "loop" in KINDS[subject.kind].laws:
            try:
                subject.harness().step(2)
            except HooklineError as err:
                subject.fails = str(err)
    return subject.fails


def unjudged(subject: Subject) -> str:
    """Why nothing can be said about a reward: it judged no row. Empty if it judged one, and for other components."""
    if subject.judges is None:
        subject.judges = ""
        if subject.kind == "reward" and not stands(subject):
            harness = subject.harness()
            rollout = harness.batch("rollout")
            ok_B = harness.term(rollout).ok_B
            if ok_B is not None and len(rollout) and not bool(ok_B.any()):
                asked = " through ctx.each: no service answered" if harness.service.asked else ""
                subject.judges = (
                    f"the reward judged none of {len(rollout)} rows{asked}; start what it asks, then repeat"
                )
    return subject.judges


def shared_generators(subject: Subject) -> list[str]:
    """The global random generators that a component's setup or steps have used, of `random`, NumPy and torch."""
    if subject.drawn is None:
        subject.drawn = []
        if "loop" in KINDS[subject.kind].laws and not stands(subject):
            before = generators.states()
            with subject.fresh() as harness:
                harness.step(2)
            subject.drawn = generators.differing(before, generators.states())
    return subject.drawn


def check(target: type[Component] | Offer, **options: Any) -> Report:
    """Test every law on a component with these options. Takes seconds, on the CPU."""
    with opened(target, options) as subject:
        if not KINDS[subject.kind].laws:
            some = ", ".join(kind.name for kind in taught())
            raise HooklineError(f"the suite has no laws for a {subject.kind}", f"kinds with laws: {some}")
        verdicts = [judge(one, subject) for one in laws(subject.cls, subject.kind)]
        return Report(subject.offer, subject.options, tuple(verdicts))


def conformance(cls: type[Component], **options: Any) -> Any:
    """A pytest test with one parameter per law: `test_mine = conformance(Mine, gamma=0.9)`."""
    import atexit

    import pytest

    offer = offer_of(cls)
    check_class(cls, offer.kind, str(offer))
    mine = laws(cls, offer.kind)
    kept: list[Subject] = []

    def test(law: Law) -> None:
        __tracebackhide__ = True
        if not kept:
            stack = contextlib.ExitStack()
            atexit.register(stack.close)
            kept.append(stack.enter_context(opened(offer, options)))
        verdict = judge(law, kept[0])
        if verdict.outcome == "not applicable":
            pytest.skip(verdict.detail)
        if verdict.outcome == "fail":
            pytest.fail(f"{offer} breaks the law '{law.name}': {law.meaning}\n{verdict.detail}", pytrace=False)
        if verdict.outcome == "not tried":
            pytest.fail(f"the law '{law.name}' was not tried on {offer}: {verdict.detail}", pytrace=False)

    return pytest.mark.parametrize("law", mine, ids=[one.name for one in mine])(test)


def unknown_names(cls: type[Component]) -> list[str]:
    """Names in `promises` and `exempt` that are not names of laws."""
    known = {one.name for one in every_law()}
    said = [*getattr(cls, "promises", ()), *getattr(cls, "exempt", {})]
    return [f"'{name}'{nearest(name, known)}" for name in said if name not in known]
