"""Laws about code of the user's that a plan names: the columns that rewards read, and the files that a run keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from hookline.batch.stages import Record
from hookline.contract.component import Component
from hookline.contract.fields import marked
from hookline.errors import DataError, HooklineError, PluginError
from hookline.plan.plan import Plan
from hookline.plan.slots import Problem
from hookline.registry.blame import blame
from hookline.registry.offers import Offer

__all__ = ["kept_files_differ_in_name", "rows_have_the_columns"]


def rows_have_the_columns(plan: Plan) -> Iterator[Problem]:
    """The first rows that a rollout reads have the columns that rewards and sources of feedback read."""
    for phase in plan.phases:
        evaluations = ((one.rollout, one.rewards) for one in phase.evaluations)
        for rollout, readers in ((phase.rollout, (*phase.rewards, *phase.feedback)), *evaluations):
            asked = [slot for slot in readers if slot.cls.check_row is not Component.check_row]
            reads = asked and rollout.cls.read_row is not Component.read_row
            for name in marked(rollout.config, "data").values() if reads else ():
                rows: Sequence[tuple[str, Record]] = ()
                with suppress(HooklineError):  # the law about the rollout's data reports it
                    rows = plan.catalogue.first(name)
                for slot in asked:
                    try:
                        with blame(slot, "check_row"):
                            for where, record in rows:
                                slot.component.check_row(record, where)
                    except (DataError, PluginError) as err:
                        yield Problem(slot.path, err)


def kept_files_differ_in_name(plan: Plan) -> Iterator[Problem]:
    """The files of functions have different names, since a run stores them in one folder."""
    seen: dict[str, Offer] = {}
    for slot in plan.every():
        if slot.offer.function:
            first = seen.setdefault(slot.offer.distribution, slot.offer)
            if first.version != slot.offer.version:
                yield Problem(slot.path, f"{first.path} and {slot.offer.path} have the same name; rename one: a run stores both")
