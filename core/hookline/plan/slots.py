"""From a name in the file to a component: found, imported, checked and configured; every problem is collected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pydantic import ValidationError

from hookline.config.problems import count, in_order, problems_of, same_of
from hookline.config.yaml import Document
from hookline.contract.check import check_class
from hookline.contract.component import Component
from hookline.contract.fields import FUNCTION, Config, Use, marked, nested
from hookline.contract.kinds import KINDS
from hookline.errors import ExperimentError, HooklineError, PluginError, a
from hookline.plan.plan import Place
from hookline.registry import offers
from hookline.registry.construct import configure
from hookline.registry.offers import Offer
from hookline.registry.slot import Slot

__all__ = ["Planner", "Problem"]


@dataclass(frozen=True)
class Problem:
    """What is wrong, and where in the experiment."""

    path: Place
    text: str | HooklineError
    """One sentence; or an error, which has a hint and an exit code of its own."""


@dataclass
class Planner:
    document: Document
    loose: tuple[Offer, ...]
    folder: str = ""
    """Where the relative paths in components' options begin."""
    kept: str = ""
    """The folder of a run's own copies of the files that functions are in."""
    ended: bool = False
    """Whether that run is only read."""
    problems: list[str] = field(default_factory=list)
    errors: list[HooklineError] = field(default_factory=list)
    only: frozenset[str] = frozenset(KINDS)
    """The kinds of components that are looked up; those of other kinds are left out of the plan."""

    def slot(
        self,
        kind: str,
        use: Use | None,
        path: Place,
        label: str = "",
        base: type[Component] | None = None,
        settle: Callable[[Config], Config] = lambda config: config,
    ) -> Slot | None:
        """The component that `use` names, including the components inside it; None if it has a problem.

        label: the component's name in the run; default KIND/INSTANCE. base: the class that it must derive from.
        settle: gives values to options that the experiment leaves out.
        """
        if use is None or kind not in self.only:
            return None
        if use.weight != 1.0 and (kind != "reward" or "evaluate" in path):
            self.say(
                Problem(
                    path,
                    f"'{use.instance}' has a weight, which only the rewards of a phase can have; remove the weight",
                )
            )
        try:
            offer = offers.find(kind, use.use, self.loose)
            cls = check_class(offer.load(), kind, str(offer))
        except PluginError as err:
            refused: HooklineError = err
            if use.use == FUNCTION and "path" in use.options:
                why = f"{use.options['path']}:{use.options.get('function')} is a function, and {a(kind)} cannot be one"
                refused = ExperimentError(why, "write a component (hookline plugins new) and make its file available with -p")
            self.say(Problem((*path, "use"), refused))
            return None
        if base is not None and not issubclass(cls, base):
            what = a(base.__name__.lower())
            text = ExperimentError(f"'{use.instance}' is not {what}", f"name {what}: hookline plugins list")
            self.say(Problem(path, text))
            return None
        try:
            config = settle(configure(cls, use.options, str(offer), self.folder, self.kept, self.ended))
            for file in marked(config, "code").values():
                offer = offer.calling(file, use.instance)
        except ValidationError as err:
            # the user's name for the component precedes its options
            self.problems += problems_of(err, self.document, cls.Config, path)
            return None
        except (PluginError, ExperimentError) as err:
            self.say(Problem(path, err))
            return None
        label = label or f"{kind}/{use.instance}"
        inner = {
            part.key: self.slot(part.kind, part.use, (*path, *part.path), f"{label}/{part.key}", part.base)
            for part in nested(config)
        }
        found = {key: slot for key, slot in inner.items() if slot}
        if len(found) < len(inner):
            return None
        slot = Slot(kind, use.instance, offer, cls, config, use.weight, path, label, found)
        try:
            slot.ask()
        except HooklineError as err:
            self.say(Problem(path, err))
            return None
        return slot

    def say(self, problem: Problem) -> None:
        text = self.document.where(problem.path) + str(problem.text)
        if same_of(text) in map(same_of, self.problems):  # the same in another round
            return
        if isinstance(problem.text, HooklineError):
            self.errors.append(problem.text)
        self.problems.append(text)

    def hold(self, found: Iterable[Problem]) -> None:
        for problem in found:
            self.say(problem)

    def finish(self) -> None:
        """Raise one error that lists all problems, if there are any."""
        if not self.problems:
            return
        if len(self.problems) == 1 and self.errors:
            only = self.errors[0]
            text = self.problems[0].removesuffix(f" → {only.hint}")
            only.message = f"{self.document.name}{'' if text.startswith('line ') else ':'} {text}"
            raise only
        kinds = {type(err) for err in self.errors}
        problems = in_order(self.problems)
        error = ExperimentError(f"{count(problems)} in {self.document.name}", "", problems)
        if len(kinds) == 1 and len(self.errors) == len(self.problems):
            error.exit_code = self.errors[0].exit_code
        raise error
