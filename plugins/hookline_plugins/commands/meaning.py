"""What a configuration of another trainer means as an experiment: the method, model and rows, and options with what is said beside them.

A word that carries the same value here goes by Hookline's table of other trainers' words and by the component's own `synonyms`.
What has to be computed, such as rows per step, is in the trainer's class: `trl.py`, `verl.py` and `openrlhf.py` beside this file.
"""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import hookline
from hookline import ExperimentError, UpdateConfig
from hookline_plugins.commands.foreign import Foreign
from hookline_plugins.commands.template import METHODS, Line, Method, shown
from hookline_plugins.sampling import SamplingOptions

CARRIED = {
    "an update": {
        "lr", "critic_lr", "grad_clip", "weight_decay", "clip_range", "clip_high", "value_clip", "value_weight", "entropy_bonus",
        "kl_loss",
    },
    "a wrapper": {"beta"},
    "an advantage": {"lam", "gamma"},
    "a rollout": {"samples_per_prompt", "max_new_tokens", "longest", *SamplingOptions.model_fields},
    "the model": {"gradient_checkpointing"},
    "the experiment": {"seed"},
}  # fmt: skip
"""Options that take another trainer's value as it is."""
SCHEDULES = {"linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}
OPTIMIZERS = {"adam": "adamw", "sgd": "sgd", "muon": "muon"}


class Meaning(ABC):
    """A configuration that is being read. `method`, `model`, `data`, … are there at once; `settle` finds the options."""

    group_kl: ClassVar[bool] = False
    """Whether a price of KL is paid in the reward even by methods that pay it in the loss here."""
    foreign_keys: ClassVar[tuple[str, ...]] = ()
    """Beginnings of keys about other things than the policy's update and its rollouts."""

    def __init__(self, foreign: Foreign) -> None:
        self.name, self.trainer, self.values, self.processes = foreign.name, foreign.trainer, foreign.values, foreign.processes
        self.script = foreign.script.rpartition("/")[2].removesuffix(".py").rpartition(".")[2]
        self.read: set[str] = set()
        """Keys whose meaning is settled."""
        self.lines: dict[tuple[str, str], Line] = {}
        """(place, option) → its line."""
        self.left: list[str] = []
        """What has no counterpart, and what is decided otherwise."""
        self.epochs: float | None = None
        self.price = False
        """Whether KL is paid in the reward although the method does not ask for it."""
        self.rewards: list[str] = []
        self.absent: list[str] = []
        """Rewards that are named and are not here, as a function of a file or as the folder of a reward model."""
        self.arguments: dict[str, str] = {}
        """A parameter of a reward function → the column that it gets."""
        self.columns: dict[str, str] = {}
        self.method = self.chosen()
        """A method of `hookline init`, or None where the configuration does not say it."""
        self.model = self.take(*self.model_keys())
        self.data = self.take(*self.data_keys())

    # -- what a trainer says

    @abstractmethod
    def chosen(self) -> str | None:
        """The method."""

    @abstractmethod
    def model_keys(self) -> tuple[str, ...]:
        """Keys of the model's folder."""

    @abstractmethod
    def data_keys(self) -> tuple[str, ...]:
        """Keys of the rows."""

    @abstractmethod
    def judged(self) -> None:
        """Find `rewards` with their `arguments`, those that are `absent`, and `columns`."""

    @abstractmethod
    def adapter(self) -> dict[str, Any]:
        """The options of a low-rank adapter; empty without one."""

    @abstractmethod
    def numbers(self, method: Method) -> None:
        """What has to be computed: rows per step, their parts, the length, the rates."""

    # -- reading

    def take(self, *keys: str) -> Any:
        """The value of the first key that is there, `*` in it being anything; None without one. All count as read."""
        here = [found for key in keys for found in fnmatch.filter(self.values, key) if self.values[found] is not None]
        self.read.update(here)
        return self.values[here[0]] if here else None

    def number(self, *keys: str, default: float) -> Any:
        value = self.take(*keys)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ExperimentError(f"{self.name}: {keys[0]} is {shown(value)}, which is not a number", "write a number there")
        return value

    def place(self, place: str, option: str, value: Any, note: str = "") -> None:
        self.lines.setdefault((place, option), Line(value, note))

    def rows(self, rows: float, note: str, parts: float = 1, parts_note: str = "") -> None:
        """Rows per step, and in how many optimiser steps they are used."""
        self.place("a rollout", "rows", max(1, round(rows)), note)
        if round(parts) > 1:
            self.place("an update", "minibatches", round(parts), parts_note)

    def rates(self, lr: Any, schedule: Any, warmup: float | None, least: Any = None) -> None:
        """The learning rate as this trainer would have it. None: what is usual here."""
        if lr is not None:
            self.place("an update", "lr", lr)
        if schedule is not None:
            ours = SCHEDULES.get(str(schedule), "cosine" if "cosine" in str(schedule) else "linear")
            self.place("an update", "schedule", ours, "" if ours == schedule else f"{self.trainer}: {schedule}")
        if warmup is not None:
            share = 0 < warmup < 1
            self.place("an update", "warmup", warmup if share else int(warmup), "of the steps" if share else "")
        if least is not None:
            self.place("an update", "final_lr", least, "of the peak")

    def betas(self, first: Any, second: Any) -> None:
        if (first, second) != (0.9, 0.95):
            self.place("an update", "betas", [first, second])

    def optimizer(self, *keys: str) -> None:
        name = str(self.take(*keys) or "adamw").lower()
        ours = next((ours for word, ours in OPTIMIZERS.items() if word in name), None)
        if ours is None:
            self.left.append(f"optimizer {name}: adamw is used")
        elif ours != "adamw":
            self.place("an update", "optimizer", ours)

    def lasts(self, epochs: float, steps: float = 0) -> None:
        """The length: passes over the data, or steps."""
        if steps > 0:
            self.place("a phase", "steps", max(1, round(steps)))
        else:
            self.epochs = epochs

    # -- the rest

    def settle(self, method: str, update: UpdateConfig, rollout: hookline.Config) -> None:
        """Find the lines of a method. update, rollout: the options that its components have."""
        self.numbers(METHODS[method])
        fields = {"an update": type(update).model_fields, "a rollout": type(rollout).model_fields}
        own = type(update).synonyms
        for key, value in self.values.items():
            if key in self.read:
                continue
            word = key.rpartition(".")[2]
            found = None if key.startswith(self.foreign_keys) else self._target(word, fields, own, METHODS[method])
            if found and value is not None and found not in self.lines:
                if not (found[1] == "top_k" and value == -1):
                    self.place(*found, value)
            elif value not in (None, False, "", [], {}):
                self.left.append(self._about(key, word, value))
        self.price = self.price or METHODS[method].price
        if ("a wrapper", "beta") in self.lines and (not self.price or not self.lines["a wrapper", "beta"].value):
            self.price, _ = False, self.lines.pop(("a wrapper", "beta"))
        self.lines = {key: line for key, line in self.lines.items() if key[1] in fields.get(key[0], (key[1],))}

    def _target(
        self, word: str, fields: Mapping[str, Mapping[str, Any]], own: Mapping[str, str], method: Method
    ) -> tuple[str, str] | None:
        """(place, option) of a word that keeps its value."""
        if word in own:
            return "an update", own[word]
        meant = [(ours.place, ours.option) for ours in hookline.meanings(word)]
        meant += [(place, word) for place in CARRIED]
        if word in ("beta", "loss") and word in fields["an update"]:
            return "an update", word
        for place, option in meant:
            skip = {"an advantage": not method.advantage, "a wrapper": not method.price}.get(place, False)
            if not skip and option in CARRIED.get(place, ()) and option in fields.get(place, (option,)):
                return place, option
        return None

    def _about(self, key: str, word: str, value: Any) -> str:
        said = shown(value) if not isinstance(value, str) else value
        line = f"{key}: {said if len(said) < 60 else said[:57] + '…'}"
        known = [] if key != word and word in ("name", "path", "data", "format", "type") else hookline.meanings(word)[:2]
        here = [f"'{ours.option}' of {ours.place}{f' ({ours.note})' if ours.note else ''}" for ours in known]
        return f"{line}   here {' or '.join(here)}" if here else line

    def missing(self, model: str | None, data: str | None, method: str | None) -> tuple[list[str], list[str]]:
        """(what cannot be decided from the file, the options that decide it)."""
        asked, options = [], []
        if method is None:
            asked.append("which method it is for")
            options.append("--method NAME")
        for given, named, what, option in (
            (model, self.model, "model", "--model DIR"),
            (data, self.data, "data", "--data FILE"),
        ):
            if given is None and self.path(named) is None:
                several = isinstance(named, list)
                asked.append(
                    f"one file or folder of rows, for {len(named)} are named" if several
                    else f"the {what} '{named}', which is not here" if named else f"the {what}"
                )  # fmt: skip
                options.append(option)
        return asked, options

    def path(self, named: Any) -> str | None:
        """What a configuration names, if it is here: seen from the current folder, or from the configuration's."""
        if isinstance(named, list) and len(named) == 1:
            named = named[0]
        if not isinstance(named, str) or not named:
            return None
        near = (Path(named).expanduser(), Path(self.name).expanduser().parent / named)
        return next((str(path) for path in near if path.exists()), None)
