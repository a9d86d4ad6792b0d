"""The experiment file: its schema, and a reader that reports every problem at once."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from hookline.config import yaml
from hookline.config.data import DataSpec
from hookline.config.objects import plain
from hookline.config.overrides import override
from hookline.config.problems import UNNAMED, count, in_order, problems_of
from hookline.config.rounds import unroll
from hookline.config.yaml import Document
from hookline.contract.fields import DataName, Identifier, LocalPath, PhaseIdentifier, Strict, Use
from hookline.contract.kinds import KINDS, Kind, of_phase
from hookline.contract.metrics import plain_figure
from hookline.errors import ExperimentError, shorten
from hookline.storage.paths import expanded, model_folder

__all__ = [
    "Evaluation",
    "Experiment",
    "ModelSpec",
    "Phase",
    "Source",
    "TokenizerSpec",
    "completed",
    "document_of",
    "load",
]


def _adapter(value: Any) -> Any:
    """`{lora: {rank: 8}}` as `{use: lora, rank: 8}`."""
    if not isinstance(value, Mapping) or "use" in value:
        return value
    if len(value) != 1:
        raise ValueError(
            f"must name one adapter, e.g. {{lora: {{rank: 8}}}}; it has {', '.join(map(str, value)) or 'none'}"
        )
    [(name, options)] = value.items()
    if not isinstance(options, Mapping | None):
        raise ValueError(f"must have the options of '{name}' in a mapping, e.g. {{{name}: {{rank: 8}}}}")
    return {**(options or {}), "use": name}


class ModelSpec(Strict):
    """Where a model comes from and how it computes."""

    build: Use | None = None
    """An architecture with its options: `{build: gpt2, layers: 4, width: 256}`."""
    path: Annotated[LocalPath, AfterValidator(model_folder)] | None = None
    """A local transformers folder; or an earlier run, `RUN` or `RUN/phases/NAME`, whose model is taken. The folder of a peft
    adapter is short for its base, which adapter_config.json names, with `merge`."""
    merge: LocalPath | None = None
    """With `path`: the folder of a peft adapter that is added to the weights before anything is trained. If it has a tokenizer,
    that is used."""
    start: str | None = Field(None, alias="from")
    """Phases only: the phase whose model this phase starts from. Default: the last phase that trained the policy."""
    head: Use | None = None
    """Phases only: a head that predicts numbers instead of tokens, e.g. `reward`; the phase then trains a reward model."""
    adapter: Annotated[Use, BeforeValidator(_adapter)] | None = None
    """Train this adapter and keep the rest of the model frozen: `{lora: {rank: 8}}`."""
    family: Use | None = None
    """The experiment's model only: how its network computes. Default: `causal`, a language model read from left to right."""
    dtype: Literal["auto", "float32", "bfloat16"] | None = None
    """The type in which weights are stored (default float32). `auto`: the folder's type; float32 for a model that is built. Weights
    in bfloat16 that train have a float32 copy, without which small steps would be lost: with adamw they take 16 bytes each,
    as float32 weights do, and 4 more during an optimiser step. Frozen models and adapters' bases take 2 instead of 4."""
    autocast: Literal["auto", "bfloat16", "none"] | None = None
    """The type in which matrix products are computed, if it differs from dtype. `auto`: bfloat16 where the device supports it
    (GPUs from sm80, processors with amx_bf16, AMD's with avx512_bf16), none elsewhere, where bfloat16 is several times slower."""
    attention: Literal["auto", "sdpa", "flash", "eager"] | None = None
    """How attention is computed: `auto` as transformers chooses, `sdpa` by torch's kernel, `flash` by FlashAttention 2 (a GPU,
    bfloat16 and the package flash-attn), `eager` by plain products, slowest and with the fewest surprises."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, a third more time."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        value = dict(value)
        if isinstance(value.get("build"), str):
            own = {name for key, field in cls.model_fields.items() for name in (key, field.alias)}
            options = {key: value.pop(key) for key in list(value) if key not in own}
            value["build"] = {"use": value["build"], **options}
        return value


class TokenizerSpec(Strict):
    """A tokenizer trained for this experiment, or one from a local folder; nothing is downloaded."""

    train: Literal["bpe", "words"] | None = None
    """`bpe`: byte-level byte-pair encoding. `words`: every word of the texts is a token, for small tasks with few different words."""
    on: DataName | None = None
    """The texts that the tokenizer is trained on."""
    vocabulary: int = Field(4096, ge=260, le=1_000_000)
    """The number of tokens. More tokens make texts shorter and the output layer larger. `words` uses fewer if the texts have fewer."""
    path: LocalPath | None = None
    """A folder with tokenizer.json."""
    eos: tuple[str, ...] = ()
    """With `path`: the tokens that end an answer, instead of those that the folder names; the first ends a text."""
    pad: str | None = None
    """With `path`: the padding token, instead of the folder's. It must be in the vocabulary."""
    chat_template: LocalPath | None = None
    """With `path`: a file with a chat template in Jinja, instead of the folder's."""

    @model_validator(mode="after")
    def _one(self) -> TokenizerSpec:
        if (self.train is None) == (self.path is None):
            raise ValueError("must say where the tokenizer comes from: either `train: bpe` with `on:`, or `path:`")
        if self.train and (self.eos or self.pad or self.chat_template):
            raise ValueError("`eos`, `pad` and `chat_template` are for the tokenizer of a folder; give its `path`")
        if self.train and not self.on:
            raise ValueError("`train` needs `on:`, the texts to train on, e.g. builtin:stdlib-docs")
        return self


class Evaluation(Strict):
    """Other rows than those of training, answered and judged at intervals."""

    name: Identifier = UNNAMED["evaluate"]
    every: int = Field(0, ge=0)
    """Steps between evaluations; 0: only before the first step and after the last."""
    prompts: str | None = None
    """Shorthand for the phase's own rollout on other prompts: a split such as `heldout`, or a data name."""
    rollout: Use | None = None
    """A rollout of the evaluation's own, instead of `prompts`."""
    rows: int = Field(64, ge=1)
    """How many rows are judged."""
    reward: tuple[Use, ...] = ()
    """The rewards that give the evaluation's figures. None: the figures of the phase's update, if it has any for rows that are
    read: its loss, accuracy, margin, …"""

    @field_validator("reward", mode="before")
    @classmethod
    def _many(cls, value: Any) -> Any:
        return _as_list(value)


class Best(Strict):
    """A figure by its name, or `{figure: eval/perplexity, lowest: true}`."""

    figure: str
    """Any figure of the phase's rows, e.g. eval/keyword-coverage."""
    lowest: bool = False
    """The lowest value is the best one, as for a perplexity."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"figure": value} if isinstance(value, str) else value

    @field_validator("figure")
    @classmethod
    def _plain(cls, value: str) -> str:
        return plain_figure(value)


class Save(Strict):
    every: int = Field(50, ge=1)
    """Steps between checkpoints. A small number loses less work when a run is killed; a large number writes to disk less often."""
    keep: int = Field(2, ge=1)
    """How many checkpoints are kept."""
    end: bool = True
    """Keep the newest checkpoint of the last phase when it ends, so that more `steps` can follow; false saves disk."""
    best: Best | None = None
    """Also keep the weights with the highest, or the lowest, value of a figure."""


class Stop(Best):
    """When a phase ends before its last step: a figure that has not improved for a while."""

    patience: int = Field(3, ge=1)
    """How often in a row the figure may come without being better than the best so far."""
    least: float = Field(0.0, ge=0, allow_inf_nan=False)
    """By how much a value must be better than the best so far, to count as better."""


class Completions(Strict):
    """Answers of training that are kept, with their rewards."""

    every: int = Field(10, ge=0)
    """Steps between those whose answers are kept, besides the first; ten times as many after 100 of them. 0 keeps none."""
    rows: int = Field(4, ge=1)
    """How many answers of such a step are kept."""


class _Loop(Strict):
    """The fields of a phase besides its components."""

    name: PhaseIdentifier
    steps: int = Field(0, ge=1, le=100_000_000)
    """The number of steps; a phase has either this or `epochs`."""
    epochs: float | None = Field(None, gt=0, le=100_000, allow_inf_nan=False, validate_default=True)
    """Passes over the rollout's data. The plan counts how many steps that is, and a run keeps the number."""
    model: ModelSpec = ModelSpec()

    @field_validator("epochs")
    @classmethod
    def _is_as_long_as_it_says(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None and info.data.get("steps") == 0:
            raise ValueError("is missing, and so is `steps`; say how long the phase is with one of them")
        return value


def _section(kind: Kind) -> Any:
    """The field under which a phase names components of a kind: its type and default."""
    if kind.many:
        return tuple[Use, ...], ()
    if kind.required:
        return Use, ...
    return (Use, Use(use=kind.default)) if kind.default else (Use | None, None)


if TYPE_CHECKING:
    _Sections = _Loop
else:
    _Sections = create_model("_Sections", __base__=_Loop, **{kind.section: _section(kind) for kind in of_phase()})


class Phase(_Sections):
    """One loop over the four hooks. It has one field for each kind of component that a phase names; see `uses`."""

    evaluate: tuple[Evaluation, ...] = ()
    save: Save = Save()
    completions: Completions = Completions()
    """Which answers of training are written to completions.jsonl, shown by trackers and in the report."""
    stop: Stop | None = None
    """End the phase early, when a figure no longer improves: `{figure: eval/perplexity, lowest: true, patience: 3}`."""
    patience: int = Field(20, ge=1)
    """The run stops after this many steps in a row without any difference in reward: they give nothing to learn from.

    A phase whose rewards differed earlier prints a notice and continues, since its policy may be as good as it can get.
    """

    @field_validator("evaluate", *(kind.section for kind in of_phase() if kind.many), mode="before")
    @classmethod
    def _many(cls, value: Any) -> Any:
        return _as_list(value)

    @model_validator(mode="after")
    def _does_something(self) -> Phase:
        if not self.uses("update") and not self.uses("feedback"):
            raise ValueError("does not update weights or collect feedback; name an `update` or a `feedback`")
        return self

    def uses(self, kind: str) -> tuple[Use, ...]:
        """The components of a kind that the phase names, in its order."""
        value = getattr(self, KINDS[kind].section)
        return value if isinstance(value, tuple) else () if value is None else (value,)


class Experiment(Strict):
    """A whole experiment: a model and a list of phases."""

    name: Identifier
    seed: int = Field(0, ge=0, lt=2**63)
    """The seed of every random number."""
    tokenizer: TokenizerSpec | None = None
    """Default: the tokenizer in the folder of the model's `path`."""
    model: ModelSpec
    phases: tuple[Phase, ...] = Field(min_length=1)
    trackers: tuple[Use, ...] = (Use(use="console"),)
    plugins: tuple[LocalPath, ...] = ()
    """Loose files to make available, as with `-p`."""
    data: dict[Identifier, DataSpec] = Field(default_factory=dict)
    """Names for data that needs more than a path: columns, a split, a mixture, a held-out share."""
    folder: str = ""
    """Where relative paths begin. Default: the folder of the experiment's file."""
    device: str = "auto"
    """The device of the networks: `cpu`, `cuda`, `cuda:1`, `mps` (untried), or `auto`: the first GPU, if there is one."""
    threads: int | None = Field(None, ge=1, le=4096)
    """The number of CPU threads of one process; results repeat exactly with an equal number. Default: torch's."""
    matrix: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict, exclude=True)
    """Several runs from one file: override path → values. Each combination of values is one run, without a matrix."""
    levers: dict[Identifier, Annotated[dict[str, Any], Field(min_length=1)]] = Field(default_factory=dict, exclude=True)
    """Several runs from one file: a name → override paths and their values. One run is the file itself, and each lever is one more."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", value):
            raise ValueError(f"is '{shorten(value)}'; it must be auto, cpu, cuda, cuda:N or mps")
        return value

    @field_validator("model")
    @classmethod
    def _begins_here(cls, value: ModelSpec) -> ModelSpec:
        of_a_phase = [key for key, given in (("head", value.head), ("from", value.start)) if given is not None]
        if of_a_phase:
            raise ValueError(f"has `{of_a_phase[0]}`, which only the model of a phase can have; move it there")
        return value

    @field_validator("trackers", "plugins", mode="before")
    @classmethod
    def _many(cls, value: Any) -> Any:
        return _as_list(value)

    @model_validator(mode="after")
    def _names_differ(self) -> Experiment:
        names = [phase.name for phase in self.phases]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"has two phases called '{twice}'; phase names must differ")
        if (self.model.build is None) == (self.model.path is None):
            raise ValueError("must say where the model comes from: either model.build or model.path")
        if self.model.merge and self.model.path is None:
            raise ValueError("has model.merge, which is for the model of a folder; write model.path beside it")
        if self.tokenizer is None and self.model.path is None:
            raise ValueError("names no tokenizer; add tokenizer: {train: bpe, on: …} or {path: …}")
        return self

    def resolved(self) -> dict[str, Any]:
        """Plain values with every default filled in, as written into the run directory."""
        dumped: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return dumped


def completed(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved experiment, possibly written by an earlier release; sections added since then have their defaults."""
    absent: dict[str, Any] = {kind.section: [] if kind.many else None for kind in of_phase() if not kind.required}
    absent |= {kind.section: Use(use=kind.default).model_dump(mode="json") for kind in of_phase() if kind.default}
    absent |= {"completions": Completions().model_dump(mode="json"), "epochs": None, "stop": None}
    phases = resolved.get("phases")
    whole = isinstance(phases, list) and all(isinstance(phase, Mapping) for phase in phases)
    return {"data": {}, "folder": "", **resolved, "phases": [{**absent, **phase} for phase in phases or ()]} if whole else dict(resolved)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping) else [] if value is None else value


Source = str | Path | Mapping[str, Any] | Document
"""An experiment: a YAML file, a mapping with the same content, or a document that was read from either."""


def document_of(source: Source) -> Document:
    """The values of an experiment, unchecked. A Document is copied, so that overrides of one run do not change another run."""
    if isinstance(source, Document):
        return copy.deepcopy(source)
    if isinstance(source, Mapping):
        return Document("the experiment", plain(source))
    return yaml.read(expanded(Path(source)))


def load(
    source: Source,
    overrides: Sequence[str] = (),
    also: Callable[[Document], Sequence[str]] | None = None,
) -> tuple[Experiment, Document]:
    """Read, override and validate. Raises one ExperimentError that lists every problem with its line.

    also: called if there are problems; returns problems of other readers, so that one message lists all of them.
    """
    document = document_of(source)
    problems = document.problems
    for assignment in overrides:
        try:
            override(document, assignment)
        except ExperimentError as err:
            problems.append(str(err))
    unroll(document)
    try:
        if document.folder:
            document.values.setdefault("folder", document.folder)
        parsed = Experiment.model_validate(document.values, context={"folder": document.folder})
    except ValidationError as err:
        problems += problems_of(err, document, Experiment)
    if not problems:
        return parsed, document
    problems += also(document) if also else ()
    raise ExperimentError(f"{count(problems)} in {document.name}", "", in_order(problems))
