"""What `explain` and `plugins` print: which component answers which hook, its source, and what each option means."""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookline.contract.kinds import KINDS, of_phase
from hookline.errors import HooklineError
from hookline.registry import offers
from hookline.registry.offers import Offer

if TYPE_CHECKING:  # `plugins list` answers from metadata alone: nothing heavy is imported for it
    from hookline.contract.component import Component
    from hookline.plan.plan import Plan, PlannedPhase
    from hookline.registry.slot import Slot
    from hookline.tokens.tokenizer import Tokenizer

__all__ = ["explain_json", "explain_text", "list_json", "list_text", "show_json", "show_text"]


# -- explain


def explain_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values."""
    return {
        "name": plan.experiment.name,
        "seed": plan.experiment.seed,
        "device": _device(plan),
        "tokenizer": list(_tokenizer(plan)),
        "data": list(_data(plan)),
        "code": list(_code(plan)),
        "phases": [
            {
                "name": phase.spec.name,
                "steps": phase.spec.steps,
                "length": phase.length,
                "model": _model(plan, phase),
                "rates": phase.rates,
                "hooks": [
                    {"hook": hook, "does": does, **(_slot(slot) if slot else {"name": None})}
                    for hook, does, slot in _hooks(phase)
                ],
                "roles": list(_roles(phase)),
                "evaluations": [
                    {
                        "name": e.spec.name,
                        "every": e.spec.every,
                        "rows": e.spec.rows,
                        "rollout": _slot(e.rollout),
                        "reward": [_slot(r) for r in e.rewards],
                    }
                    for e in phase.evaluations
                ],
            }
            for phase in plan.phases
        ],
        "trackers": [_slot(slot) for slot in plan.trackers],
    }


def _data(plan: Plan) -> Iterator[str]:
    """How data is read, where that is not plain from its name."""
    for name in dict.fromkeys(name for _, name in plan.data()):
        if decided := plan.catalogue.decided(name):
            yield f"data       {name}: {decided}"


def _code(plan: Plan) -> Iterator[str]:
    """The functions of the user's files that the run will call, with file, line and hash."""
    for slot in plan.every():
        if slot.offer.function:
            called = f", called {said}" if (said := slot.component.code_call) else ""
            origin = f"{slot.offer.distribution} {slot.offer.version}"
            yield f"code       {_short(slot.source)} {slot.instance}, a {slot.kind} ({origin}){called}"


def _device(plan: Plan) -> str:
    """The device of the networks on this machine."""
    from hookline.world import devices

    return str(devices.resolve(plan.experiment.device))


def _tokenizer(plan: Plan) -> Iterator[str]:
    """What was decided about the tokenizer of a folder, and the first row of data as the model sees it."""
    spec, path = plan.experiment.tokenizer, plan.experiment.model.path
    if spec and spec.train:
        return
    from hookline.tokens.peek import stand_in

    made = stand_in(spec, path, ())
    for text in made.decided:
        yield f"tokenizer  {text}"
    yield from itertools.islice(_first_rows(plan, made), 1)


def _first_rows(plan: Plan, tokenizer: Tokenizer) -> Iterator[str]:
    """The first row of each component's data as the model sees it."""
    from hookline.batch.encoded import Encoded
    from hookline.contract.fields import marked
    from hookline.tokens.encode import Encoding
    from hookline.tokens.peek import pieces

    for slot in plan.every():
        for name in marked(slot.config, "data").values():
            for where, record in plan.catalogue.first(name)[:1]:
                read = slot.component.read_row(Encoding(tokenizer), record, where)
                row = read[0] if isinstance(read, list) and read else read
                if isinstance(row, Encoded):
                    text = "".join(f"[[{part}]]" if own else part for part, own in pieces(row, tokenizer))
                    yield f"first row  {name}: {text!r}"


def _hooks(phase: PlannedPhase) -> Iterator[tuple[str, str, Slot | None]]:
    """(key of the experiment, verb, component): the component of each kind, then the components that wrap its hook."""
    for kind in of_phase():
        if kind.around:
            continue
        found: tuple[Slot | None, ...] = phase.of(kind.name)
        if kind.name == "advantage" and not found and phase.advantage_by:
            yield kind.section, "brings", phase.advantage_by
        elif kind.wrapped_by or found:
            for slot in found or (None,):
                yield kind.section, kind.verb, slot
        for wrap in phase.wraps:
            if kind.wrapped_by in wrap.hooks:
                yield kind.section, KINDS[wrap.kind].verb, wrap


def _model(plan: Plan, phase: PlannedPhase) -> str:
    if phase.start:
        where = f"policy as phase '{phase.start}' left it"
    elif plan.architecture:
        where = f"policy built from {plan.architecture.instance}, seeded"
    else:
        model = plan.experiment.model
        where = f"policy from {model.path}" + (f" with the adapter {model.merge} merged" if model.merge else "")
    head = f", with head '{phase.head.instance}'" if phase.head else ""
    adapter = f", training adapter '{phase.adapter.instance}'" if phase.adapter else ""
    types = plan.model_of(phase)
    products = f", products in {types.autocast}" if types.autocast not in (None, "none") else ""
    attention = f", attention by {types.attention}" if types.attention not in (None, "auto") else ""
    return f"{where}{head}{adapter}, in {types.dtype or 'float32'}{products}{attention}"


def _roles(phase: PlannedPhase) -> Iterator[str]:
    """Models besides the policy: those that configs name by phase, and those that components declare to make."""
    from hookline.contract.fields import marked

    left: dict[str, None] = {}
    makers: dict[str, list[str]] = {}
    for slot in phase.with_evaluations:
        for key, name in marked(slot.config, "phase").items():
            names = ", ".join(f"'{other}'" for other in phase.rounds(name))
            reads = (
                f"what {names} collected" if "feedback" in slot.needs else f"as phase '{phase.latest(name)}' left it"
            )
            left[f"{slot.instance}.{key}: {reads}"] = None
        for key, folder in marked(slot.config, "model").items():
            left[f"{slot.instance}.{key}: the model in {folder}"] = None
        for given in sorted(slot.gives):
            if given.startswith("role:"):
                makers.setdefault(given.removeprefix("role:"), []).append(slot.instance)
    yield from left
    for role, who in makers.items():
        yield f"{role}: made for {', '.join(dict.fromkeys(who))}"


def _slot(slot: Slot) -> dict[str, Any]:
    return {
        "name": slot.instance,
        "component": slot.offer.name,
        "distribution": slot.offer.distribution,
        "version": slot.offer.version,
        "source": _short(slot.source),
        "weight": slot.weight,
        "options": slot.config.model_dump(mode="json", by_alias=True),
        "needs": sorted(slot.needs),
        "gives": sorted(slot.gives),
        **({"parts": {key: _slot(part) for key, part in slot.inner.items()}} if slot.inner else {}),
    }


def _short(source: str) -> str:
    """A short path: relative to the current folder if the file is inside it, else the last three parts."""
    path, colon, line = source.rpartition(":")
    try:
        return f"{Path(path).resolve().relative_to(Path.cwd())}{colon}{line}"
    except ValueError:
        parts = Path(path).parts
        return f"{'/'.join(parts[-3:])}{colon}{line}"


def explain_text(plan: Plan) -> str:
    """One block per phase, one line per hook."""
    lines = [f"{plan.experiment.name}   seed {plan.experiment.seed}   device {_device(plan)}"]
    lines += [f"  {line}" for line in (*_tokenizer(plan), *_data(plan), *dict.fromkeys(_code(plan)))]
    for phase in plan.phases:
        lines += ["", f"{phase.spec.name}   {phase.spec.steps} steps   {_model(plan, phase)}"]
        lines += [f"  {phase.length}"] if phase.length else []
        lines += [f"  {line}" for line in (*_roles(phase), *([phase.rates] if phase.rates else []))]
        also = {
            kind: _also(kind, slot, plan)
            for kind, slot in (("advantage", phase.advantage_by), ("update", phase.update))
        }
        for hook, does, slot in _hooks(phase):
            if slot is None:
                lines.append(f"  {hook:<10} none")
                continue
            tail = also.get(hook, "") if does in ("answers", "brings") else ""
            lines.append(f"  {hook:<10} {does:<8} {_named(slot)}{tail}")
            for part in [*slot.every()][1:]:
                lines.append(f"    {part.label} {KINDS[part.kind].verb} {_named(part)}")
        for e in phase.evaluations:
            when = f"every {e.spec.every} steps" if e.spec.every else "before and after"
            figures = ", ".join(e.figures) or "answers"
            what = f"{e.spec.name}: {figures} on {e.spec.rows} rows of {e.rollout.instance}"
            lines.append(f"  {'evaluate':<10} {when:<8} {what}")
    lines += [f"\nnote: {text}" for text in plan.notes]
    lines += ["", "trackers   " + (", ".join(slot.instance for slot in plan.trackers) or "none")]
    return "\n".join(lines)


def _named(slot: Slot) -> str:
    """A component's name in the experiment, its weight, its distribution and its source."""
    name = slot.instance if slot.instance == slot.offer.name else f"{slot.instance} ({slot.offer.name})"
    weight = f" × {slot.weight:g}" if slot.kind == "reward" and slot.weight != 1 else ""
    return f"{name + weight:<22} {slot.offer.distribution} {slot.offer.version}, {_short(slot.source)}"


def _also(kind: str, slot: Slot | None, plan: Plan) -> str:
    others = sorted(
        {o.name for o in offers.offers(plan.loose) if o.kind == kind and not o.problem}
        - {slot.offer.name if slot else ""}
    )
    return f"   (also offered: {', '.join(others)})" if others else ""


# -- plugins


def _clashes(found: Sequence[Offer], offer: Offer) -> str:
    if offer.problem:
        return offer.problem
    same = [o for o in found if (o.kind, o.name) == (offer.kind, offer.name) and not o.problem and o is not offer]
    return f"also offered by {same[0].distribution}; write use: {offer.distribution}:{offer.name}" if same else ""


def list_json(plugins: Sequence[str] = ()) -> list[dict[str, Any]]:
    found = offers.available(plugins)
    return [
        {
            "kind": o.kind,
            "name": o.name,
            "distribution": o.distribution,
            "version": o.version,
            "target": o.target,
            "built_in": o.built_in,
            "problem": _clashes(found, o),
        }
        for o in found
    ]


def list_text(found: Sequence[dict[str, Any]]) -> str:
    widths = {
        key: max([len(str(item[key])) for item in found] + [len(key)])
        for key in ("kind", "name", "distribution", "version")
    }
    lines = ["  ".join(key.ljust(width) for key, width in widths.items()) + "  state"]
    for item in sorted(found, key=lambda i: (not i["built_in"], i["kind"], i["name"])):
        cells = "  ".join(str(item[key]).ljust(width) for key, width in widths.items())
        lines.append(f"{cells}  {'⚠ ' + item['problem'] if item['problem'] else 'offered'}")
    lines.append("This list reads only metadata; to import and check a component: hookline plugins show NAME")
    return "\n".join(lines)


def show_json(name: str, plugins: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every offer of that name, imported and checked. Raises HooklineError when there is none."""
    everything = offers.available(plugins)
    return [_show(offer, _clashes(everything, offer)) for offer in offers.by_name(name, everything)]


def _show(offer: Offer, problem: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "kind": offer.kind,
        "name": offer.name,
        "distribution": offer.distribution,
        "version": offer.version,
        "target": offer.target,
        "problem": problem,
    }
    if problem and offer.problem:
        return shown
    from hookline.contract.check import check_class

    try:
        cls = check_class(offer.load(), offer.kind, str(offer))
    except HooklineError as err:
        return {**shown, "problem": str(err)}
    return {**shown, **_about(cls)}


def _about(cls: type[Component]) -> dict[str, Any]:
    from hookline.contract.fields import kind_within

    config = cls.Config.model_fields
    options = {
        field.alias or name: {
            "type": f"component of kind {kind}" if (kind := kind_within(field)) else _type_name(field.annotation),
            "default": "required" if field.is_required() else _default(field.get_default(call_default_factory=True)),
            "means": " ".join((field.description or "").split()),
        }
        for name, field in config.items()
    }
    from hookline.contract.component import docstring_of
    from hookline.registry.construct import source_of

    module = inspect.getmodule(cls)
    example: Component | None
    try:
        example = cls(cls.Config())
    except Exception:
        example = None
    return {
        "does": " ".join(docstring_of(cls).split("\n\n")[0].split()),
        "story": (inspect.getdoc(module) or "") if module else "",
        "source": _short(source_of(cls)),
        "hook_api": cls.hook_api,
        "options": options,
        "needs": sorted(example.needs) if example else "depends on its options",
        "gives": sorted(example.gives) if example else "depends on its options",
        "metrics": {m.name: m.formula for m in (example.metrics if example else ())},
    }


def _default(value: Any) -> Any:
    """A default as it is shown: a value whose text would be an address in memory is shown by its name."""
    return getattr(value, "__name__", type(value).__name__) if " at 0x" in repr(value) else value


def _type_name(annotation: Any) -> str:
    """A readable name of a type, without its bounds, which the option's description states."""
    inner = typing.get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type_name(inner[0])
    if any(hasattr(one, "__metadata__") for one in inner) and typing.get_origin(annotation) not in (tuple, list):
        return " | ".join("None" if one is type(None) else _type_name(one) for one in inner)
    if inner and typing.get_origin(annotation) in (tuple, list):
        return (
            f"{typing.get_origin(annotation).__name__}[{', '.join('…' if a is ... else _type_name(a) for a in inner)}]"
        )
    if isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("Literal", "one of ")


def show_text(found: Sequence[dict[str, Any]]) -> str:
    blocks = []
    for item in found:
        lines = [
            f"{item['kind']} {item['name']}   {item['distribution']} {item['version']}   {item.get('source', item['target'])}"
        ]
        if item["problem"]:
            lines.append(f"⚠ {item['problem']}")
        if "does" in item:
            lines += ["", *(item["story"] or item["does"]).splitlines()]
            for key in ("needs", "gives"):
                if item[key]:
                    lines.append(f"\n{key}: {', '.join(item[key]) if isinstance(item[key], list) else item[key]}")
            if item["options"]:
                lines += ["", "options:"]
            for name, option in item["options"].items():
                lines.append(f"  {name} = {option['default']}   ({option['type']})")
                if option["means"]:
                    lines.append(f"      {option['means']}")
            if item["metrics"]:
                lines += ["", "figures:", *(f"  {name}: {formula}" for name, formula in item["metrics"].items())]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
