"""Config fields: strict options, components by name, and names of data and phases that are checked before a run starts."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal

from pydantic import (
    AfterValidator,
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
from hookline.storage.paths import MEMORY, beside, expanded, kept_or_beside, model_folder, store_beside

__all__ = [
    "FUNCTION",
    "CodePath",
    "Config",
    "DataName",
    "Identifier",
    "LocalPath",
    "ModelPath",
    "Nested",
    "PhaseIdentifier",
    "PhaseName",
    "StoreName",
    "Strict",
    "UpdateConfig",
    "Use",
    "instance_name",
    "kind_within",
    "marked",
    "nested",
]

UsedT = TypeVar("UsedT", default=Any)
FUNCTION = "function"
"""The component that `FILE.py:NAME` is short for, in the kinds that have one: `{use: function, path: FILE.py, function: NAME}`."""


class _Marker:
    def __init__(self, what: str, target: Any = None) -> None:
        self.what, self.target = what, target


PhaseName = Annotated[str, _Marker("phase")]
"""A config field that names an earlier phase; checked before the run starts."""
def _beside(path: str, info: ValidationInfo) -> str:
    return path if path.startswith(MEMORY) else beside(path, (info.context or {}).get("folder", ""))


LocalPath = Annotated[str, AfterValidator(_beside)]
"""A config field that names a file or folder, relative to the experiment's file; a `~` at its beginning is the home folder."""
def _kept(path: str, info: ValidationInfo) -> str:
    context = info.context or {}
    return kept_or_beside(path, context.get("folder", ""), context.get("kept", ""), context.get("ended", False))


CodePath = Annotated[str, AfterValidator(_kept), _Marker("code")]
"""A config field that names a Python file of the user's, found as a `LocalPath` is. The file is hashed and copied into the run,
which goes on only with the same file, and which is read later with its own copy; `explain` lists it as code that will run."""
ModelPath = Annotated[LocalPath, AfterValidator(model_folder), _Marker("model")]
"""A config field that names a model: a local transformers folder, or an earlier run, `RUN` or `RUN/phases/NAME`, whose model
is taken. The folder is checked before the run starts, and `explain` lists it; `ctx.role(…, path=…)` loads it."""
def _store(url: str, info: ValidationInfo) -> str:
    return store_beside(url, (info.context or {}).get("folder", ""))


StoreName = Annotated[str, AfterValidator(_store)]
"""A config field that names a store: a URL, e.g. `sqlite:///answers.db`, or a file; `hookline.store` opens it. Relative paths are as
in a `LocalPath`."""
DataName = Annotated[str, AfterValidator(expanded), _Marker("data")]
"""A config field that names data: a file, `FORMAT:FILE`, `builtin:NAME/SPLIT` or `task:NAME/SPLIT`; checked before the run starts."""
PhaseIdentifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(@[1-9][0-9]*)?$", max_length=90)]
"""A phase's name; `repeat` unrolls a phase into phases called NAME@ROUND."""
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
"""The name of an instance, an evaluation, …: letters, digits, `.`, `_` and `-`."""


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, and `true` as a number; a string under a field describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` and `false` for numbers; pydantic would accept them as 1 and 0."""
        if isinstance(value, bool):
            annotation = cls.model_fields[str(info.field_name)].annotation
            if {int, float} & {annotation, *getattr(annotation, "__args__", ())}:
                raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


class Use(Strict, Generic[UsedT]):
    """A component by name, with its options next to the name: `gae`, or `{use: gae, lam: 0.9}`. A function of a file is
    named as `FILE.py:NAME`, and the component is then called after it.

    The type of a config field that holds a component is `Use[BASE]` with the base class of its kind, e.g.
    `Use[Environment]`. For kinds without a base class it is `Use[Literal["reward"]]`, or the shorter `Use["reward"]`,
    which linters mistake for the name of a class. `Use[…] | None` and `tuple[Use[…], …]` are also allowed.
    """

    use: str = Field(min_length=1, max_length=160)
    """The name of the component: `NAME`, or `DISTRIBUTION:NAME` if two distributions offer the same name."""
    name: Identifier | None = None
    """The name of this instance, for an experiment that uses one component twice."""
    weight: float = Field(1.0, allow_inf_nan=False)
    """Rewards only: the factor of this reward in the sum."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The component's own options, before validation."""

    def __class_getitem__(cls, target: Any) -> Any:
        if typing.get_origin(target) is Literal:
            [target] = typing.get_args(target)
        if not isinstance(target, str | type):
            return cls
        kind = target if isinstance(target, str) else kind_of_base(target)
        if kind not in KINDS:
            raise TypeError(f"Use[{target!r}]: this is not a kind or the base class of a kind{nearest(kind, KINDS)}")
        return Annotated[Use, _Marker("component", target)]

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"use": value}
        resolved = isinstance(value, Mapping) and isinstance(value.get("options"), Mapping)
        if isinstance(value, Mapping) and not (resolved and value.keys() <= cls.model_fields.keys()):
            own = {key: value[key] for key in ("use", "name", "weight") if key in value}
            value = {**own, "options": {key: item for key, item in value.items() if key not in own}}
        return _of_a_function(value) if isinstance(value, Mapping) else value

    @field_validator("use")
    @classmethod
    def _no_dotted_path(cls, value: str) -> str:
        if value.endswith(".py"):
            raise ValueError(f"names a file; name a function in it: {value}:FUNCTION (or make its components available with -p)")
        if not re.fullmatch(r"[A-Za-z0-9._-]+(:[a-z0-9._-]+)?", value):
            raise ValueError(
                "names an installed component, not a path or a function; FILE.py:NAME names a function of a file, and "
                "-p FILE makes the components of a file available"
            )
        return value

    @property
    def instance(self) -> str:
        """The name of this instance, as returned by `instance_name`."""
        return instance_name(self)


def _of_a_function(value: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a use, with `FILE.py:NAME` in its long form, and called after the function."""
    path, _, name = str(value.get("use")).rpartition(":")
    options = value.get("options") or {}
    if path.endswith(".py") and isinstance(options, Mapping):
        options = {"path": path, "function": name, **options}
        value = {**value, "use": FUNCTION, "options": options}
    if value.get("use") == FUNCTION and value.get("name") is None and isinstance(options, Mapping):
        called = str(options.get("function") or "").lstrip("_")
        value = {**value, **({"name": called} if re.fullmatch(r"[A-Za-z0-9][\w.]*", called) else {})}
    return dict(value)


def instance_name(use: Use | Mapping[str, Any]) -> str:
    """The name of a component in an experiment: its `name`, or else the name after `use`, without the distribution.

    use: the component as written in an experiment, or as in a resolved experiment.
    """
    said = {"use": use.use, "name": use.name} if isinstance(use, Use) else use
    return str(said.get("name") or str(said["use"]).rpartition(":")[2])


@dataclass(frozen=True)
class Nested:
    """A component that a config holds."""

    key: str
    """The field, as the user writes it; `FIELD/0`, `FIELD/1`, … if the field holds several."""
    path: tuple[str | int, ...]
    """The path of the component within the options."""
    kind: str
    """The component's kind, e.g. `environment`."""
    base: type | None
    """The class that the component must derive from, if the field declares one."""
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
    """The kind of the component that a config field holds; empty for a field without components."""
    return _held(field)[0]


def _held(field: Any) -> tuple[str, type | None]:
    """The kind of the component that a config field holds, and its base class if the field declares one."""
    target = next((m.target for m in _markers(field) if m.what == "component"), "")
    return (target, None) if isinstance(target, str) else (kind_of_base(target), target)


def marked(config: BaseModel, what: str) -> dict[str, str]:
    """Field name → value of the fields declared `PhaseName`, `DataName`, `CodePath` or `ModelPath`."""
    found: dict[str, str] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, str) and any(m.what == what for m in _markers(field)):
            found[field.alias or name] = value
        if isinstance(value, BaseModel):  # nested options are reported under the outer field
            for inner in marked(value, what).values():
                found[name] = inner
    return found


def _markers(field: Any) -> list[_Marker]:
    return [m for m in (*field.metadata, *_annotated(field.annotation)) if isinstance(m, _Marker)]


def _annotated(annotation: Any) -> Iterator[Any]:
    """The metadata of every `Annotated` within an annotation."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in typing.get_args(annotation):
        yield from _annotated(inner)


class Config(Strict):
    """A component's options. Below each field, describe what large and small values do. Unknown keys are errors."""

    model_config = ConfigDict(populate_by_name=False, allow_inf_nan=False)

    synonyms: ClassVar[Mapping[str, str]] = {}
    """Words that users may bring for an option, each with its name here: `{"coef": "beta"}`. An error then names the option."""


Decay = Annotated[float, Field(ge=0, lt=1)]


class UpdateConfig(Config):
    """The options that all updates share: how the gradient changes the weights."""

    usual_lr: ClassVar[float] = 1e-6
    """The learning rate for all weights of a given model, where the experiment says none. An adapter takes ten times as much."""

    lr: float = Field(1e-3, gt=0, le=1)
    """Peak learning rate. Large values learn fast but become unstable; small values waste steps. Without it: 1e-3 for a model
    that is built here, and what is usual for the method for the weights of a folder; `hookline explain` shows it."""
    matrix_lr: float | None = Field(None, gt=0, le=1)
    """Learning rate of the hidden matrices when the optimizer is `muon`; default: `lr`."""
    optimizer: Literal["adamw", "muon", "rmsprop", "sgd"] = "adamw"
    """`muon` orthogonalises updates of hidden matrices (Jordan et al. 2024), AdamW does the rest; `rmsprop` divides gradients by
    their running size (the second of `betas`; torch's own default is 0.99), without AdamW's momentum; `sgd` is plain."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """Decoupled decay of matrices per unit of learning rate; large values pull weights to zero."""
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """AdamW's decay rates of the two moments; values nearer 1 average over more steps."""
    warmup: float = Field(0, ge=0)
    """Optimiser steps over which the learning rate grows from nearly 0 to its peak; below 1: their share of the phase. Without it:
    0.1 for the weights of a folder."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls after warm-up, towards `final_lr` of its peak at the phase's end. Without it: linear for the
    weights of a folder."""
    final_lr: float = Field(0.0, ge=0, le=1)
    """The fraction of the peak that remains at the end of a falling schedule."""
    grad_clip: float = Field(1.0, gt=0)
    """Maximum L2 norm of the whole gradient; small values are safe and slow."""
    epochs: int = Field(1, ge=1)
    """Passes over each step's rows. More passes reuse the rollout more, but increasingly off-policy."""
    minibatches: int = Field(1, ge=1)
    """Optimiser steps per pass: the rows are shuffled and split into this number of parts."""
    micro_tokens: int = Field(16384, ge=1)
    """Tokens, including padding, of one forward and backward pass. Small saves memory; results differ by rounding."""
    packing: Literal[False, True, "auto"] = False
    """`true` lays rows of different lengths end to end instead of padding them, which is faster where rows of a part
    differ much; each row still reads itself only, and results differ by rounding. A model that cannot compute packed rows
    is refused; `auto` pads its rows instead, with a notice."""

    @field_validator("warmup")
    @classmethod
    def _steps_or_share(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("must be a whole number of optimiser steps, or a share of them below 1")
        return int(value) if value >= 1 or value == 0 else value

    def usual(self, *, adapter: bool) -> dict[str, Any]:
        """Options for training the weights of a given model, by their names; override it to add options of your own.

        They hold where the experiment does not say otherwise. adapter: a new adapter is trained instead of all weights.
        """
        return {"lr": float(f"{self.usual_lr * (10 if adapter else 1):.3g}"), "schedule": "linear", "warmup": 0.1}

    def lr_of(self, role: str) -> float:
        """The peak learning rate of one role; override it to give the critic of an algorithm a different rate."""
        return self.lr
