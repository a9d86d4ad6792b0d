"""Config fields: strict options, components by name, and names of data and phases that are checked before a run starts."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import TypeVar

from hookline.contract.kinds import KINDS, kind_of_base
from hookline.errors import nearest

__all__ = [
    "Config",
    "DataName",
    "Identifier",
    "Nested",
    "PhaseIdentifier",
    "PhaseName",
    "Strict",
    "UpdateConfig",
    "Use",
    "instance_name",
    "kind_within",
    "marked",
    "nested",
]

UsedT = TypeVar("UsedT", default=Any)


class _Marker:
    def __init__(self, what: str, target: Any = None) -> None:
        self.what, self.target = what, target


PhaseName = Annotated[str, _Marker("phase")]
"""A config field that names an earlier phase; checked before the run starts."""
DataName = Annotated[str, _Marker("data")]
"""A config field that names data: a file, `FORMAT:FILE`, `builtin:NAME/SPLIT` or `task:NAME/SPLIT`; checked before the run starts."""
PhaseIdentifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(@[1-9][0-9]*)?$", max_length=90)]
"""A phase's name; NAME@ROUND is what `repeat` unrolls to."""
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
"""A name of an instance, an evaluation, …: letters, digits, `.`, `_` and `-`."""


class Strict(BaseModel):
    """A frozen model without unknown keys, in which `true` is not a number and a string under a field describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes `true` for 1; people who write it meant something else."""
        if isinstance(value, bool):
            annotation = cls.model_fields[str(info.field_name)].annotation
            if {int, float} & {annotation, *getattr(annotation, "__args__", ())}:
                raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


class Use(Strict, Generic[UsedT]):
    """A component by name, with its options beside it: `gae`, or `{use: gae, lam: 0.9}`.

    The type of a config field that holds a component is `Use[Environment]`, by base class, or, for kinds without one,
    `Use[Literal["reward"]]`, for short `Use["reward"]`, which linters take for the name of a class. `| None` and
    `tuple[Use[…], …]` may stand around it.
    """

    use: str = Field(min_length=1, max_length=160)
    """The name that a component is offered under: `NAME`, or `DISTRIBUTION:NAME` where two offer it."""
    name: Identifier | None = None
    """What this instance is called, when one component is used twice."""
    weight: float = Field(1.0, allow_inf_nan=False)
    """Rewards only: its factor in the sum."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The component's own options, not validated yet."""

    def __class_getitem__(cls, target: Any) -> Any:
        if typing.get_origin(target) is Literal:
            [target] = typing.get_args(target)
        if not isinstance(target, str | type):
            return cls
        kind = target if isinstance(target, str) else kind_of_base(target)
        if kind not in KINDS:
            raise TypeError(f"Use[{target!r}]: that is neither a kind nor the base class of one{nearest(kind, KINDS)}")
        return Annotated[Use, _Marker("component", target)]

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"use": value}
        if isinstance(value, Mapping) and "options" not in value:
            own = {key: value[key] for key in ("use", "name", "weight") if key in value}
            return {**own, "options": {key: item for key, item in value.items() if key not in own}}
        return value

    @field_validator("use")
    @classmethod
    def _no_dotted_path(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]+(:[a-z0-9._-]+)?", value):
            raise ValueError(
                "names an installed component, never a path or a function; -p FILE makes a loose one available"
            )
        return value

    @property
    def instance(self) -> str:
        """What this instance is called, as `instance_name` says it."""
        return instance_name(self)


def instance_name(use: Use | Mapping[str, Any]) -> str:
    """What a component in use is called: its `name`, else the name it is offered under, without its distribution.

    use: as in an experiment, or as a resolved experiment holds it.
    """
    said = {"use": use.use, "name": use.name} if isinstance(use, Use) else use
    return str(said.get("name") or str(said["use"]).rpartition(":")[2])


@dataclass(frozen=True)
class Nested:
    """A component that a config holds."""

    key: str
    """The field, as the user writes it; `FIELD/0`, `FIELD/1`, … where it holds several."""
    path: tuple[str | int, ...]
    """Where it stands within the options."""
    kind: str
    """The component's kind, e.g. `environment`."""
    base: type | None
    """The class that it must derive from, where the field says one."""
    use: Use
    """The component by name, with its options."""


def nested(config: BaseModel) -> Iterator[Nested]:
    """The components that a config holds, in the order of its fields."""
    for name, field in type(config).model_fields.items():
        kind, base = _held(field)
        if not kind:
            continue
        called, value = field.alias or name, getattr(config, name)
        if isinstance(value, Use):
            yield Nested(called, (called,), kind, base, value)
        for i, one in enumerate(value if isinstance(value, tuple | list) else ()):
            yield Nested(f"{called}/{i}", (called, i), kind, base, one)


def kind_within(field: Any) -> str:
    """The kind of the component that a config field holds; empty where it holds none."""
    return _held(field)[0]


def _held(field: Any) -> tuple[str, type | None]:
    """The kind of the component that a config field holds, and its base class where the field says one."""
    target = next((m.target for m in _markers(field) if m.what == "component"), "")
    return (target, None) if isinstance(target, str) else (kind_of_base(target), target)


def marked(config: BaseModel, what: str) -> dict[str, str]:
    """Field name → value of the fields declared `PhaseName` or `DataName`."""
    found: dict[str, str] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, str) and any(m.what == what for m in _markers(field)):
            found[field.alias or name] = value
        if isinstance(value, BaseModel):  # options inside an option, named by the outer one
            for inner in marked(value, what).values():
                found[name] = inner
    return found


def _markers(field: Any) -> list[_Marker]:
    return [m for m in (*field.metadata, *_annotated(field.annotation)) if isinstance(m, _Marker)]


def _annotated(annotation: Any) -> Iterator[Any]:
    """What `Annotated` says anywhere within an annotation."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in typing.get_args(annotation):
        yield from _annotated(inner)


class Config(Strict):
    """A component's options. One sentence per field, saying what large and small do; unknown keys are errors."""

    model_config = ConfigDict(populate_by_name=False, allow_inf_nan=False)


Decay = Annotated[float, Field(ge=0, lt=1)]


class UpdateConfig(Config):
    """What every update shares: how its gradient becomes a change of weights."""

    lr: float = Field(1e-3, gt=0, le=1)
    """Peak learning rate. Large is fast and then unstable; small wastes steps."""
    matrix_lr: float | None = Field(None, gt=0, le=1)
    """Learning rate of the hidden matrices when the optimizer is `muon`; default: `lr`."""
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    """`muon` orthogonalises the update of hidden matrices (Jordan et al. 2024) and leaves the rest to AdamW; `sgd` is plain."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """Decoupled decay of matrices per unit of learning rate; large pulls weights to zero."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """AdamW's decay of the two moments; nearer 1 averages longer."""
    warmup: int = Field(0, ge=0)
    """Optimiser steps over which the learning rate grows from nearly 0 to its peak."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls after warm-up, towards `final_lr` of its peak at the phase's end."""
    final_lr: float = Field(0.0, ge=0, le=1)
    """What is left of the peak at the end of a falling schedule."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest L2 norm of the whole gradient; small is safe and slow."""
    epochs: int = Field(1, ge=1)
    """Passes over each step's rows. More reuse the rollout harder, off its own policy."""
    minibatches: int = Field(1, ge=1)
    """Optimiser steps per pass: the rows are shuffled and split into this many parts."""
    micro_tokens: int = Field(16384, ge=1)
    """Tokens, padding included, of one forward and backward pass. Saves memory; changes no result beyond rounding."""

    def lr_of(self, role: str) -> float:
        """The peak learning rate of one role; an algorithm with a critic may have its own for it."""
        return self.lr
