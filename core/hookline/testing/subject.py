"""A component under test, and the setting in which the component takes steps."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hookline.contract.check import check_class, kind_of
from hookline.contract.component import Component
from hookline.errors import ExperimentError, HooklineError, PluginError
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.synonyms import suggestion
from hookline.testing import stand_ins
from hookline.testing.harness import Harness
from hookline.testing.stand_ins import STAND_INS
from hookline.testing.surroundings import Handed, Setting, guesses, heads, naming, own_rows, plain_gives, unfilled

__all__ = ["Subject", "offer_of"]


def offer_of(cls: type[Component]) -> Offer:
    """The offer of a class: the installed one, or a new one for a class that no distribution offers."""
    target = f"{cls.__module__}:{cls.__qualname__}"
    kind = kind_of(cls)
    found = next((o for o in offers.offers() if (o.kind, o.target) == (kind, target) and not o.problem), None)
    if found:
        return found
    if not kind:
        raise PluginError(f"{cls.__name__} answers no hook", "mark a method such as hookline_advantage with @hookimpl")
    try:
        path = str(inspect.getsourcefile(cls) or "")
    except (TypeError, OSError):
        path = ""
    path = path if Path(path).is_file() else stand_ins.__file__
    name = "".join(f"-{c.lower()}" if c.isupper() else c for c in (cls.name or cls.__name__)).strip("-")
    return Handed(kind, name.replace("_", "-"), target, Path(path).name, "handed over", path=path, cls=cls)


class Subject:
    """A component under test, and the harnesses made for it. Use it as a context manager, or `close()` it."""

    def __init__(self, offer: Offer, options: Mapping[str, Any], folder: Path) -> None:
        self.offer = offer
        """The component: its kind, name, distribution and version."""
        self.options: dict[str, Any] = dict(options)
        """The options that the component is tested with."""
        self.folder = folder
        """The folder of the rows and of the harnesses' runs."""
        self.cls = check_class(offer.load(), offer.kind, str(offer))
        """The component's class."""
        self.kind = offer.kind
        """The component's kind, e.g. `update`."""
        known = [field.alias or name for name, field in self.cls.Config.model_fields.items()]
        unknown = next((name for name in options if name not in known), None)
        if unknown:
            raise ExperimentError(
                f"'{offer.name}' has no option '{unknown}'{suggestion(unknown, known)}",
                f"it has: {', '.join(known) or 'none'}",
            )
        self.setting: Setting | None = None
        """The data, phases and neighbours in which the component takes a step; None until the first harness is made."""
        self.fails: str | None = None
        """Why the component fails to take a step; empty if it takes one, None before the first attempt."""
        self.judges: str | None = None
        """Why a reward judges no row; empty if it judges one, None before the first question."""
        self.drawn: list[str] | None = None
        """The global random generators that the component has used; None before the first attempt."""
        self._harnesses: dict[str, Harness] = {}
        self._made = 0
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in own_rows()), encoding="utf-8")
        self.rows = str(rows)
        """The file of rows that prompts and answers are read from."""

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every harness."""
        for harness in self._harnesses.values():
            harness.close()
        self._harnesses.clear()

    def harness(self, **options: Any) -> Harness:
        """The harness with these options on top of the subject's own; it is kept, and reset to its start at each call."""
        key = json.dumps(options, sort_keys=True, default=str)
        if key not in self._harnesses:
            self._harnesses[key] = self.new(**options)
        harness = self._harnesses[key]
        harness.restore()
        return harness

    def new(self, **options: Any) -> Harness:
        """A new harness, which the caller closes."""
        if self.setting is None:
            self.settle()
        assert self.setting is not None
        return self._open(self.setting, options)

    @contextlib.contextmanager
    def fresh(self, **options: Any) -> Iterator[Harness]:
        """A new harness, closed at the end of the `with` block."""
        harness = self.new(**options)
        try:
            yield harness
        finally:
            harness.close()

    def settle(self) -> None:
        """Find a setting in which the component takes a step, else the first setting that at least opens.

        Raises the first setting's error if none opens.
        """
        first: HooklineError | None = None
        opens: Setting | None = None
        for setting in self._settings():
            try:
                harness = self._open(setting, {})
            except HooklineError as err:
                first = first or err
                continue
            except ValidationError as err:
                first = first or unfilled(self.offer, err)
                continue
            opens = opens or setting
            try:
                harness.step()
            except HooklineError as err:
                first = first or err
                continue
            finally:
                harness.close()
            self.setting = setting
            return
        if opens is None:
            assert first is not None
            raise first
        self.setting = self._beside_others(opens) or opens

    def _beside_others(self, opens: Setting) -> Setting | None:
        """The setting with an update that gives what the component reads, such as heads that only some updates learn."""
        if self.kind not in ("rollout", "reward"):
            return None
        for partner in sorted(o.name for o in offers.offers() if o.kind == "update" and not o.problem):
            setting = replace(opens, partner=partner)
            with contextlib.suppress(HooklineError, ValidationError):
                harness = self._open(setting, {})
                try:
                    harness.step()
                    return setting
                finally:
                    harness.close()
        return None

    def _open(self, setting: Setting, options: Mapping[str, Any]) -> Harness:
        self._made += 1
        return Harness(self, setting, options, self.folder / f"harness-{self._made}")

    def _settings(self) -> Iterator[Setting]:
        """Ways to surround the component and to fill the options that name data or a phase, the simplest first."""
        fields = self.cls.Config.model_fields
        required = {field.alias or name for name, field in fields.items() if field.is_required()}
        data_, phases = (
            [name for name in naming(self.cls, what) if name not in self.options] for what in ("data", "phase")
        )
        plain = Setting(
            rows=self.rows,
            named={name: self.rows for name in data_ if name in required},
            phases={name: "before" for name in phases if name in required},
            filled=guesses(self.cls, set(self.options)),
        )
        yield plain
        yield replace(plain, epochs=1)
        if set(data_) - required:
            yield replace(plain, named=dict.fromkeys(data_, self.rows))
        if set(phases) - required:
            yield replace(plain, phases=dict.fromkeys(phases, "before"))
        for offer in heads():
            yield replace(plain, head=offer.name)
        rare = self._needs() - set().union(*map(plain_gives, STAND_INS))
        for pick in (1, 2) if rare else ():
            yield replace(plain, pick=pick)
        counts = {
            f.alias or n: f.default for n, f in fields.items() if f.annotation is int and f.alias not in self.options
        }
        small = {name: 8 for name, count in counts.items() if isinstance(count, int) and count > 8}
        yield replace(plain, filled={**plain.filled, **small})
        tasks = sorted(o.name for o in offers.offers() if o.kind == "task" and not o.problem)
        for name in tasks if rare or data_ else ():
            yield replace(plain, rows=f"task:{name}", named=dict.fromkeys(data_, f"task:{name}"))

    def _needs(self) -> set[str]:
        """What the component needs; if the options decide, with the simplest options."""
        try:
            options = {**guesses(self.cls, set(self.options)), **self.options}
            return set(self.cls(self.cls.Config.model_validate(options)).needs)
        except (ValidationError, HooklineError):
            return {"unknown"}
