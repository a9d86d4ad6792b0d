"""`hookline init`: an experiment file to start from, for a method, a model's folder and a file of rows."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

import hookline
from hookline import Argument, Command, DataError, ExperimentError, HooklineError, Out
from hookline_plugins.commands.foreign import read
from hookline_plugins.commands.meaning import Meaning
from hookline_plugins.commands.openrlhf import OpenRLHF
from hookline_plugins.commands.template import METHODS, Line, Lines, Method, rendered, shown
from hookline_plugins.commands.trl import TRL
from hookline_plugins.commands.verl import Verl

ROWS = {"answers": 16, "preferences": 16, "labels": 32, "prompts": 16, "text": 8}
"""What rows are for → rows per step."""


NEEDS = {
    "answers": "`prompt` and `completion`, or `messages`",
    "preferences": "`chosen` and `rejected`",
    "labels": "`prompt`, `completion` and `label`",
    "prompts": "`prompt`, or `messages`",
    "text": "`text`",
}


HOLDABLE = 100
"""The number of rows from which on a share is held out."""
TRAINERS: dict[str, type[Meaning]] = {"TRL": TRL, "verl": Verl, "OpenRLHF": OpenRLHF}
FEW = 8
"""How many lines without a counterpart are printed; all are in the file."""


class Init(Command):
    """Write an experiment for a method, a model's folder and a file of rows. It runs as it is; its comments say what to change."""

    class Config(hookline.Config):
        file: Annotated[str, Argument("FILE")]
        """The experiment to write, e.g. mine.yaml."""
        start: str | None = Field(None, alias="from")
        """A configuration of TRL, verl or OpenRLHF to begin with: YAML, JSON, or a script with the command. Options here go before it."""
        method: (
            Literal[
                "sft", "causal-lm", "dpo", "simpo", "orpo", "reward-model", "kto", "grpo", "dapo", "dr-grpo", "gspo", "rloo",
                "reinforce-plus-plus", "ppo",
            ]
            | None
        ) = None  # fmt: skip
        """What to do."""
        model: str | None = None
        """A transformers folder, a run, or RUN/phases/NAME."""
        data: str | None = None
        """The rows: a file, a folder, a pattern, or builtin:NAME/SPLIT."""
        reward: list[str] = Field(default_factory=list)
        """Methods that draw answers: the name of a reward, FILE.py:FUNCTION, or the folder of a reward model; may be repeated."""
        lora: bool = False
        """Train a low-rank adapter instead of all weights: less memory."""
        epochs: float | None = Field(None, gt=0, le=1000)
        """How often each row is used; default: once, or what the configuration says."""
        overwrite: bool = False
        """Replace a file that is there."""

    def run(self, out: Out) -> int:
        target = Path(self.config.file).expanduser()
        if target.exists() and not self.config.overwrite:
            raise DataError(f"{self.config.file} already exists", "name another file, or replace it: --overwrite")
        c, meaning = self._begun()
        method = METHODS[c.method]
        if (method.reads == "prompts") is not bool(c.reward):
            raise ExperimentError(
                f"'{c.method}' {'draws answers, which a reward must judge' if method.reads == 'prompts' else 'asks no reward'}",
                "--reward NAME, e.g. --reward rewards.py:correct"
                if method.reads == "prompts"
                else "leave --reward out",
            )
        columns: dict[str, Any] = {"columns": meaning.columns} if meaning and meaning.columns else {}
        found = hookline.inspect_data(c.data, **columns)
        self._fits(c, method, found)
        write = _Writing(c, method, found, target, meaning)
        with _kept(target):
            [phase] = _planned(target, write.text()).phases
            assert phase.update is not None
            if meaning:
                meaning.settle(c.method, phase.update.config, phase.rollout.config)
            plan = _planned(target, write.text(phase.update.config, phase.rates.partition(": ")[2]))
        left = meaning.left if meaning else []
        out.value({"file": c.file, "rows": found.rows, "steps": plan.experiment.phases[-1].steps, "left": left})
        more = f" from {c.start}, a configuration of {meaning.trainer}" if meaning else ""
        out.text(
            f"{c.file}: {c.method} on {found.rows} rows of {c.data}{more}\n"
            f"  hookline explain {c.file}\n  hookline run {c.file} --out runs/{_word(target.stem)}"
        )
        if left:
            rest = [f"and {len(left) - FEW} more, in {c.file}"] if len(left) > FEW else []
            out.text("\n  ".join(["without a counterpart, or decided otherwise:", *left[:FEW], *rest]))
        return 0

    def _begun(self) -> tuple[Any, Meaning | None]:
        """The options, with those of `--from` where the command line says none. Raises ExperimentError for what is missing."""
        c = self.config
        if c.start is None:
            absent = [name for name in ("method", "model", "data") if getattr(c, name) is None]
            if absent:
                raise ExperimentError(
                    f"init needs {' and '.join(f'--{name}' for name in absent)}",
                    f"hookline init {c.file} --method sft --model DIR --data FILE; or --from CONFIG, of TRL, verl or OpenRLHF",
                )
            return c, None
        foreign = read(c.start)
        meaning = TRAINERS[foreign.trainer](foreign)
        meaning.judged()
        method = c.method or meaning.method
        asked, options = meaning.missing(c.model, c.data, method)
        rewards = c.reward or (meaning.rewards if method and METHODS[method].reads == "prompts" else [])
        if method and METHODS[method].reads == "prompts" and not rewards:
            asked.append(f"a reward: {', '.join(meaning.absent)} is not here" if meaning.absent else "a reward")
            options.append("--reward NAME")
        meaning.left += [f"reward {name}: it is not a function or a folder here" for name in meaning.absent]
        if asked:
            raise ExperimentError(
                f"{c.start}, a configuration of {meaning.trainer}, leaves open: {'; '.join(asked)}",
                f"say it: {' '.join(options)}. Nothing is downloaded: fetch it first, e.g. hf download ORG/NAME --local-dir DIR",
            )
        given = {"method": method, "model": c.model or meaning.path(meaning.model), "data": c.data or meaning.path(meaning.data)}
        return c.model_copy(update={**given, "reward": rewards}), meaning

    def _fits(self, c: Any, method: Method, found: Any) -> None:
        """Raise DataError for rows that the method cannot use."""
        has = {found.kind, "labels" if "label" in found.columns and found.kind == "answers" else ""}
        has |= {"prompts"} if found.kind in ("answers", "preferences") else set()
        has |= {"answers"} if "messages" in found.columns and found.kind == "preferences" else set()
        if method.reads not in has:
            columns = ", ".join(found.columns)
            raise DataError(
                f"{c.data} has no rows for '{c.method}': it needs {NEEDS[method.reads]}; the rows have {columns}",
                f"name the columns in the section `data` of an experiment, or choose another method{_others(has)}",
            )


class _Writing:
    """The experiment as text."""

    def __init__(self, c: Any, method: Method, found: Any, target: Path, meaning: Meaning | None) -> None:
        self.c, self.method, self.found, self.target, self.meaning = c, method, found, target, meaning

    def text(self, rates: Any = None, why: str = "") -> str:
        """rates: the update's options as the plan settles them, and why they are that."""
        c, method, found, target, meaning = self.c, self.method, self.found, self.target, self.meaning
        context = _context(c.model)
        given = self._fitting(dict(meaning.lines) if meaning and rates else {}, context)
        line = given.get(("a rollout", "rows"))
        rows = line.value if line else min(ROWS[method.reads], found.rows)
        epochs = c.epochs or (meaning.epochs if meaning and rates else None) or 1.0
        fixed = given.get(("a phase", "steps"))
        steps = fixed.value if fixed else max(1, math.ceil(epochs * found.rows / rows))
        return rendered(
            c=c,
            config=meaning,
            lines=Lines(given),
            lora=self._adapter(),
            price=meaning.price if meaning and rates else method.price,
            columns=shown(meaning.columns) if meaning and meaning.columns else "",
            method=method,
            found=found,
            name=_word(target.stem),
            file=c.file,
            model=_quoted(_from(target, c.model)),
            data=_quoted(_from(target, c.data)),
            rewards=", ".join(_reward(target, one, meaning.arguments if meaning else {}) for one in c.reward),
            chat=_has_template(c.model) and not found.roles and method.reads != "text",
            held=found.rows >= HOLDABLE and 0 < len(hookline.rows(c.data, heldout=0.05, **self._columns())) < found.rows,
            rows=rows,
            steps=steps,
            passes=f"{epochs:g} × {found.rows} rows, {rows} per step",
            rates=rates,
            why=why,
            room=min(256, max(1, context // 2)),
            length=min(256, context - 1),
        )

    def _columns(self) -> dict[str, Any]:
        return {"columns": self.meaning.columns} if self.meaning and self.meaning.columns else {}

    def _adapter(self) -> str:
        """The options of an adapter as YAML; empty without one."""
        options = (self.meaning.adapter() if self.meaning else {}) or ({"rank": 16} if self.c.lora else {})
        return "{" + ", ".join(f"{key}: {shown(value)}" for key, value in options.items()) + "}" if options else ""

    def _fitting(self, given: dict[tuple[str, str], Line], context: int) -> dict[tuple[str, str], Line]:
        """A configuration's lines, where they are more than the rows or the model have, with what there is."""
        room = {
            "rows": (self.found.rows, f"of {{}}: there are {self.found.rows} rows"),
            "max_new_tokens": (max(1, context // 2), f"of {{}}: the model's context is {context} tokens"),
            "length": (context - 1, f"of {{}}: the model's context is {context} tokens"),
        }
        for (place, option), line in list(given.items()):
            most, note = room.get(option, (None, ""))
            if place == "a rollout" and most is not None and line.value > most:
                given[place, option] = Line(most, note.format(line.value))
            elif place == "a rollout" and option == "longest" and line.value >= context:
                del given[place, option]  # the context is the limit
        return given


def _planned(target: Path, text: str) -> Any:
    """Write an experiment, and plan it."""
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as err:
        raise DataError(f"{target} cannot be written: {err.strerror}", "choose another file") from None
    return hookline.explain(target)


@contextmanager
def _kept(target: Path) -> Iterator[None]:
    """Put back what a file held, if what is written into it cannot run."""
    before = target.read_bytes() if target.is_file() else None
    try:
        yield
    except HooklineError as err:
        if before is not None:
            target.write_bytes(before)
        elif target.is_file():
            target.unlink()
            err.message = f"nothing was written: {err.message}"
        raise


def _others(has: set[str]) -> str:
    fitting = [name for name, method in METHODS.items() if method.reads in has]
    return f": {', '.join(fitting)} fit" if fitting else ""


def _from(target: Path, path: str) -> str:
    """A path as it is seen from the experiment's folder; data names that are not paths stay."""
    if path.startswith(("builtin:", "task:", "~")) or os.path.isabs(path):
        return path
    return os.path.relpath(path, target.parent)


def _reward(target: Path, name: str, arguments: Mapping[str, str]) -> str:
    """A reward as YAML: its name, a function, or the folder of a reward model; paths are seen from the experiment's folder."""
    if (_folder(name) / "config.json").is_file():
        return f"{{use: reward-model, path: {_quoted(_from(target, name))}}}"
    file, colon, function = name.rpartition(":")
    if not (colon and file.endswith(".py")):
        return _quoted(name)
    if arguments:
        columns = ", ".join(f"{parameter}: {shown(column)}" for parameter, column in arguments.items())
        return f"{{use: function, path: {_quoted(_from(target, file))}, function: {function}, columns: {{{columns}}}}}"
    return _quoted(f"{_from(target, file)}:{function}")


def _word(text: str) -> str:
    word = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in text).strip("._-")
    return word or "experiment"


def _quoted(text: str) -> str:
    return (
        text
        if text and all(letter.isalnum() or letter in "./_:-" for letter in text)
        else json.dumps(text, ensure_ascii=False)
    )


def _folder(model: str) -> Path:
    """The folder of a model's files."""
    return Path(hookline.model_folder(os.path.expanduser(model)))


def _has_template(model: str) -> bool:
    folder = _folder(model)
    return (folder / "chat_template.jinja").is_file() or "chat_template" in _json(folder / "tokenizer_config.json")


def _context(model: str) -> int:
    config = _json(_folder(model) / "config.json")
    found = config.get("max_position_embeddings") or config.get("n_positions")
    return found if isinstance(found, int) else 1024


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
