"""The parts of an experiment as types, for an editor: each is a plain dict, checked when it is used, as an experiment file is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, TypedDict

if TYPE_CHECKING:
    from hookline.contract.component import Component

    Named: TypeAlias = str | Mapping[str, Any] | type[Component] | Callable[..., Any]
    """A component: its name, its class, a function, or what `hookline.use` returns."""

__all__ = ["Evaluation", "Experiment", "Model", "Phase"]

Model = TypedDict(
    "Model",
    {
        "build": "Named",
        "path": str | Path,
        "merge": str | Path,
        "from": str,
        "head": "Named",
        "adapter": "Named",
        "family": "Named",
        "dtype": Literal["auto", "float32", "bfloat16"],
        "autocast": Literal["auto", "bfloat16", "none"],
        "attention": Literal["auto", "sdpa", "flash", "eager"],
        "gradient_checkpointing": bool,
    },
    total=False,
)
"""Where a model comes from and how it computes: `Model(path="./my-model")`, `Model(build=use("gpt2", layers=4))`."""


class Evaluation(TypedDict, total=False):
    """Rows that training never sees, answered and judged at intervals."""

    name: str
    """The name in figures and files; default `heldout`."""
    every: int
    """Steps between evaluations; 0: only before the first step and after the last."""
    prompts: Any
    """Other prompts for the phase's own rollout: a split, a data name, or rows."""
    rollout: Named
    """A rollout of the evaluation's own, instead of `prompts`."""
    rows: int
    """How many rows are judged."""
    reward: Named | Sequence[Named]
    """The rewards that give the evaluation's figures."""


class Phase(TypedDict, total=False):
    """One loop over the four hooks."""

    name: Required[str]
    """The phase's name."""
    steps: Required[int]
    """How many steps it takes."""
    rollout: Required[Named]
    """Where its rows come from: sampled, or read from data."""
    reward: Named | Sequence[Named]
    """What judges them."""
    wrap: Named | Sequence[Named]
    """What wraps a hook and changes or watches its answer."""
    advantage: Named
    """What turns rewards into credit per token."""
    update: Named
    """What changes the weights."""
    feedback: Named | Sequence[Named]
    """What compares or ranks rows, as an annotator would."""
    engine: Named
    """What draws answers from a model."""
    model: Model
    """The phase's own model, where it differs from the experiment's."""
    evaluate: Evaluation | Sequence[Evaluation]
    """What is measured on other rows."""
    completions: Mapping[str, Any]
    """Which of its rows are written into the run, e.g. `{"every": 10, "rows": 4}`."""
    save: Mapping[str, Any]
    """Its checkpoints, e.g. `{"every": 50, "keep": 2, "best": "eval/accuracy"}`."""
    epochs: float
    """Instead of `steps`: passes over the rollout's data."""
    stop: Mapping[str, Any]
    """End the phase early when a figure no longer improves, e.g. `{"figure": "eval/loss", "lowest": True, "patience": 3}`."""
    patience: int
    """How many steps in a row without any difference in reward are tolerated."""


class Experiment(TypedDict, total=False):
    """A whole experiment, as an experiment file has it: `hookline.run(Experiment(…))`."""

    name: Required[str]
    """The experiment's name."""
    model: Required[Model]
    """The model that is trained."""
    phases: Required[Sequence[Phase | Mapping[str, Any]]]
    """The phases in order; `{"repeat": 3, "phases": […]}` for rounds."""
    seed: int
    """The seed of every random number."""
    tokenizer: Mapping[str, Any]
    """Default: the tokenizer in the folder of the model."""
    trackers: Named | Sequence[Named]
    """What is told what the run does."""
    plugins: Any
    """Loose files and classes to make available."""
    data: Mapping[str, Any]
    """Names for data: rows, a path, or a mapping with columns, a split, a mixture."""
    folder: str
    """Where relative paths begin."""
    device: str
    """The device of the networks; default `auto`."""
    threads: int
    """The number of CPU threads."""
    matrix: Mapping[str, Sequence[Any]]
    """Several runs from one experiment: override path → values."""
    levers: Mapping[str, Mapping[str, Any]]
    """Several runs from one experiment: a name → override paths and their values, which are changed together."""
