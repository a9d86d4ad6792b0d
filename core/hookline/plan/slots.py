"""From a name in the file to a component: found, imported, checked and configured, with every problem kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from hookline.config.problems import count, in_order, problems_of
from hookline.config.yaml import Document
from hookline.contract.check import check_class
from hookline.contract.fields import Use
from hookline.errors import ExperimentError, HooklineError, PluginError
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.registry.slot import Slot

__all__ = ["Planner"]


@dataclass
class Planner:
    document: Document
    loose: tuple[Offer, ...]
    problems: list[str] = field(default_factory=list)
    errors: list[HooklineError] = field(default_factory=list)

    def slot(self, kind: str, use: Use | None, path: tuple[str | int, ...]) -> Slot | None:
        if use is None:
            return None
        if use.weight != 1.0 and (kind != "reward" or "evaluate" in path):
            self.say(path, f"'{use.instance}' has a weight, which only the rewards of a phase take; leave it out")
        try:
            offer = offers.find(kind, use.use, self.loose)
            cls = check_class(offer.load(), kind, str(offer))
        except PluginError as err:
            self.fail(err, (*path, "use"))
            return None
        try:
            config = cls.Config.model_validate(use.options)
        except ValidationError as err:
            # the user's words for the component stand in front of its options
            found = problems_of(err, self.document, cls.Config, path)
            self.problems += found
            return None
        return Slot(kind, use.instance, offer, cls, config, use.weight, path)

    def fail(self, err: HooklineError, path: Sequence[str | int]) -> None:
        self.errors.append(err)
        self.problems.append(self.document.where(path) + str(err))

    def say(self, path: Sequence[str | int], text: str) -> None:
        self.problems.append(self.document.where(path) + text)

    def finish(self) -> None:
        if not self.problems:
            return
        if len(self.problems) == 1 and self.errors:
            only = self.errors[0]
            only.message = f"{self.document.name} {self.problems[0].removesuffix(f' → {only.hint}')}"
            raise only
        kinds = {type(err) for err in self.errors}
        problems = in_order(self.problems)
        error = ExperimentError(f"{count(problems)} in {self.document.name}", "", problems)
        if len(kinds) == 1 and len(self.errors) == len(self.problems):
            error.exit_code = self.errors[0].exit_code
        raise error
