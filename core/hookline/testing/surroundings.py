"""What surrounds a component in the harness: rows, stand-ins, and offered components that give what else it needs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hookline.batch.stages import Advantaged, Scored
from hookline.contract.check import check_class, hook_methods
from hookline.contract.component import Component
from hookline.contract.fields import marked
from hookline.contract.kinds import KINDS, of_phase
from hookline.contract.model import Head
from hookline.data.sources import Catalogue
from hookline.errors import HooklineError, PluginError
from hookline.plan.fit import of_a_phase
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.testing import stand_ins
from hookline.testing.stand_ins import STAND_INS

__all__ = ["Handed", "Setting", "guesses", "naming", "neighbours", "own_rows", "stand_in_offers", "unfilled"]

MAY_GIVE = tuple(kind.name for kind in of_phase() if kind.in_loop and kind.name != "feedback")
"""The kinds in which the harness searches for what a component needs; judgements come from an earlier phase."""

DATA = "\0rows"


@dataclass(frozen=True)
class Handed(Offer):
    """A class given directly instead of by name."""

    cls: Any = None

    def load(self) -> Any:
        return self.cls


def stand_in_offers() -> list[Offer]:
    about = {"distribution": "hookline.testing", "version": "", "path": str(Path(stand_ins.__file__))}
    return [
        Handed(kind, name, f"{cls.__module__}:{cls.__qualname__}", **about, cls=cls)  # type: ignore[arg-type]
        for name, (kind, cls) in STAND_INS.items()
    ]


@dataclass(frozen=True)
class Setting:
    """What surrounds the component in addition to its neighbours."""

    rows: str
    """The data that prompts are drawn from."""
    named: Mapping[str, str]
    """Options of the component that name data."""
    phases: Mapping[str, str]
    """Options of the component that name an earlier phase."""
    head: str = ""
    """A head on the policy, for components that read one."""
    pick: int = 0
    """Which offered component gives what no stand-in gives: 0 is the simplest, 1 the next, …"""
    filled: Mapping[str, Any] = field(default_factory=dict)
    """Options without a default, and counts that are too large for the harness's few rows."""
    epochs: int = 2
    """Epochs of an update: in the second, ratios differ from 1. Updates that allow only one epoch get one."""
    groups: int = 0
    """Prompts per step; 0: as many as the rollout takes by default."""
    partner: str = ""
    """The update beside another component, if that component reads what only some updates give."""


def own_rows() -> list[dict[str, Any]]:
    """Rows of thirty words, with every key that a component may read."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = []
    for i in range(24):
        words = letters[i:] + letters
        chosen, rejected = " ".join([*words[3 : 5 + i % 4], "."]), " ".join(words[9 : 12 + i % 5])
        prompt = " ".join(words[: 1 + i % 4])
        rows.append(
            {
                "prompt": prompt,
                "completion": chosen,
                "chosen": chosen,
                "rejected": rejected,
                "text": f"{prompt} {chosen} ?",
                "keywords": list(words[3 : 5 + i % 3]),
                "answer": chosen,
                "label": bool(i % 2),
                "turns": [[word, "?" if i % 3 else "", float(i % 2)] for word in chosen.split()[:3]],
            }
        )
    return rows


def any_completion(name: str) -> bool:
    try:
        return any("completion" in row for row in Catalogue().rows(name).records[:1])
    except HooklineError:
        return False


def earlier(rows: str) -> dict[str, Any]:
    """A phase before the harness's own phase, with a head to read and judgements to learn from."""
    read = heads()
    return {
        "name": "before",
        "steps": 1,
        "rollout": {"use": "testing-sampled", "prompts": rows},
        "reward": "testing-worth",
        "feedback": "testing-judge",
        **({"model": {"head": read[0].name}} if read else {}),
    }


def heads() -> list[Offer]:
    """Every offered head."""

    def is_head(offer: Offer) -> bool:
        try:
            return issubclass(offer.load(), Head)
        except (PluginError, TypeError):
            return False

    return [o for o in offers.offers() if o.kind == "model" and not o.problem and is_head(o)]


def neighbours(
    kind: str, cls: type[Component], probe: Component, own: dict[str, Any], setting: Setting
) -> dict[str, Any]:
    """The parts of a phase around a component: stand-ins, and offered components that give what else is needed."""
    paired, rows = "pairs" in probe.needs, setting.rows
    parts: dict[str, Any] = {
        "rollout": {"use": "testing-pairs" if paired else "testing-sampled", "prompts": rows},
        "wrap": ["testing-uneven"],
    }
    given = set(plain_gives(parts["rollout"]["use"]))
    if kind == "rollout":
        parts = {"rollout": own, "reward": "testing-worth", "update": "testing-follow", "evaluate": [evaluation(own)]}
        if "recorded_B" in probe.gives or "recorded_BT" in probe.gives:
            del parts["reward"]
    elif kind == "reward":
        parts |= {"reward": own, "update": "testing-follow"}
    elif kind == "advantage":
        parts |= {"reward": "testing-worth", "advantage": own, "update": "testing-follow"}
    elif kind == "wrapper":
        parts["wrap"].append(own)
        parts |= {"reward": "testing-worth", "advantage": "testing-credit", "update": "testing-follow"}
    elif kind == "feedback":
        parts |= {"reward": "testing-worth", "feedback": own}
    elif kind == "engine":
        parts |= {"reward": "testing-worth", "update": "testing-follow", "engine": own}
    elif kind == "environment":
        parts |= {"rollout": {"use": "testing-host", "prompts": rows, "environment": own}}
        parts |= {"reward": "testing-worth", "update": "testing-follow"}
    elif kind == "update":
        parts |= {"update": own}
        if issubclass(cls.takes, Scored) and not paired:
            parts["reward"] = "testing-worth"
        if issubclass(cls.takes, Advantaged) and "hookline_advantage" not in hook_methods(cls):
            partner = reader(set(probe.gives)) if "critic" in probe.gives else None
            parts["advantage"] = partner or "testing-credit"
    elif KINDS[kind].scope == "phase":
        parts |= {"reward": "testing-worth", "advantage": "testing-credit", "update": "testing-follow"}
        parts |= {KINDS[kind].section: own}
    if "reward" in parts and kind != "reward":
        parts["reward"] = ["testing-worth", "testing-trickle"]
    if "correction" in probe.gives:
        parts["wrap"].insert(0, "testing-stale")
    if setting.partner and parts.get("update") == "testing-follow":
        parts["update"] = setting.partner
    missing = [need for need in sorted(probe.needs) if need not in given | set(probe.gives)]
    while missing:
        need = missing.pop()
        kinds = [k for k in MAY_GIVE if k != kind or KINDS[k].around]
        found = giver(need, kinds, setting.pick)
        if found is None:
            continue  # the plan reports the missing need
        offer, options, gives, needs = found
        use = {"use": f"{offer.distribution}:{offer.name}", **fill(options, rows)}
        if offer.kind == "wrapper":
            parts["wrap"].insert(1, use)
        elif (about := KINDS[offer.kind]).many:
            named = parts.get(about.section, [])
            parts[about.section] = [*(named if isinstance(named, list) else [named]), use]
        else:
            parts[about.section] = use
        given |= gives
        missing += [n for n in needs if n not in given]
    return parts


def plain_gives(stand_in: str) -> frozenset[str]:
    """What a stand-in gives, with any options."""
    return frozenset(inspect.getattr_static(STAND_INS[stand_in][1], "gives"))


def evaluation(own: Mapping[str, Any]) -> dict[str, Any]:
    return {"rows": 6, "rollout": dict(own), "reward": ["testing-worth"]}


def guesses(cls: type[Component], known: set[str]) -> dict[str, Any]:
    """Plain values for options that have no default; text cannot be guessed."""
    found: dict[str, Any] = {}
    for name, f in cls.Config.model_fields.items():
        called = f.alias or name
        choices = [choice for choice in getattr(f.annotation, "__args__", ()) if isinstance(choice, str)]
        if f.is_required() and called not in known:
            if choices:
                found[called] = choices[0]
            elif f.annotation in (bool, int, float):
                found[called] = True if f.annotation is bool else 4 if f.annotation is int else 0.5
    return found


def unfilled(offer: Offer, err: ValidationError) -> PluginError:
    """The error for options that the harness cannot choose."""
    problems = err.errors(include_url=False)
    missing = [str(problem["loc"][0]) for problem in problems if problem["type"] == "missing"]
    if missing:
        give = " ".join(f"{name}=…" for name in missing)
        return PluginError(
            f"{offer} has no default for {', '.join(missing)}", f"set it: hookline plugins check {offer.name} {give}"
        )
    said = "; ".join(str(problem.get("ctx", {}).get("error", problem["msg"])) for problem in problems)
    return PluginError(f"{offer} refuses its options: {said}", f"hookline plugins check {offer.name} OPTION=VALUE …")


def fill(options: Mapping[str, Any], rows: str) -> dict[str, Any]:
    return {name: rows if value == DATA else value for name, value in options.items()}


def naming(cls: type[Component], what: str) -> list[str]:
    """The options of a component that name data, or a phase."""
    everything: dict[str, Any] = dict.fromkeys(cls.Config.model_fields, "x")
    return list(marked(cls.Config.model_construct(**everything), what))


def variants(cls: type[Component]) -> Iterator[dict[str, Any]]:
    """The simplest options of a component, then variants with one switch changed or one count raised."""
    fields = cls.Config.model_fields
    required = {field.alias or name for name, field in fields.items() if field.is_required()}
    plain: dict[str, Any] = {name: DATA for name in naming(cls, "data") if name in required}
    yield plain
    for name in set(naming(cls, "data")) - required:
        yield {**plain, name: DATA}
    for name, f in fields.items():
        if f.annotation is bool:
            yield {**plain, f.alias or name: not f.default}
        elif f.annotation is int and isinstance(f.default, int):
            yield {**plain, f.alias or name: f.default + 2}


def candidates() -> Iterator[tuple[Offer, dict[str, Any], set[str], set[str]]]:
    """(offer, options, gives, needs) of every component that may be part of a loop, built-in components first.

    Needs that the phase itself meets, by its model or its engine, are left out: they make no component less simple.
    """
    for offer in sorted(offers.offers(), key=lambda o: not o.built_in):
        if offer.kind not in MAY_GIVE or offer.problem:
            continue
        try:
            cls = check_class(offer.load(), offer.kind, str(offer))
        except PluginError:
            continue
        for options in variants(cls):
            with contextlib.suppress(Exception):
                made = cls(cls.Config.model_validate(options))
                yield offer, options, set(made.gives), {need for need in made.needs if not of_a_phase(need)}


def giver(need: str, kinds: Sequence[str], pick: int) -> tuple[Offer, dict[str, Any], set[str], set[str]] | None:
    """A component of these kinds that gives `need`: the one with the fewest options and needs, or the next ones."""
    plainest: dict[tuple[str, str], tuple[Offer, dict[str, Any], set[str], set[str]]] = {}
    for found in sorted(candidates(), key=lambda c: (len(c[1]), len(c[3]))):
        if need in found[2] and found[0].kind in kinds:
            plainest.setdefault((found[0].kind, found[0].name), found)
    ranked = list(plainest.values())
    return ranked[min(pick, len(ranked) - 1)] if ranked else None


def reader(gives: set[str]) -> str | None:
    """An advantage that reads what an update gives, such as its critic."""
    found = [c for c in candidates() if c[0].kind == "advantage" and c[3] & gives and c[3] <= gives | {"groups"}]
    return f"{found[0][0].distribution}:{found[0][0].name}" if found else None
