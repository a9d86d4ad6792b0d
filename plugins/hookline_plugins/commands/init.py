"""`hookline init`: an experiment file to start from, for a method, a model's folder and a file of rows."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import Environment, StrictUndefined
from pydantic import Field

import hookline
from hookline import Argument, Command, DataError, ExperimentError, HooklineError, Out

ROWS = {"answers": 16, "preferences": 16, "labels": 32, "prompts": 16, "text": 8}
"""What rows are for → rows per step."""


@dataclass(frozen=True)
class Method:
    """How a method is written down."""

    reads: Literal["answers", "preferences", "labels", "prompts", "text"]
    """What its rows must be for."""
    update: str = ""
    """The update's name, where it is not the method's."""
    options: tuple[str, ...] = ()
    """Options of the update, each a line of the file."""
    advantage: str = ""
    price: bool = False
    """Whether the distance from the reference is paid for by a wrapper."""
    says: str = ""
    """What happens in a step."""


DRAWN = "Answers to a prompt are drawn and rewarded; the better ones become likelier."
CHOSEN = "Of two answers, the chosen one becomes likelier than the rejected one."
METHODS = {
    "sft": Method("answers", says="The model learns to give the answers of the rows."),
    "causal-lm": Method("text", says="The model learns to continue texts."),
    "dpo": Method("preferences", options=("beta: 0.1",), says=CHOSEN),
    "simpo": Method("preferences", says="Of two answers, the chosen one becomes likelier per token; there is no reference model."),
    "orpo": Method("preferences", says="The chosen answer is learned, and becomes likelier than the rejected one."),
    "reward-model": Method("preferences", "bradley-terry", says="A model that scores answers: the chosen one gets the higher score."),
    "kto": Method("labels", options=("beta: 0.1",), says="Answers that were liked become likelier, the others less likely."),
    "grpo": Method("prompts", options=("kl_loss: 0.0",), says=DRAWN),
    "dapo": Method("prompts", says=DRAWN),
    "gspo": Method("prompts", says=DRAWN),
    "rloo": Method("prompts", price=True, says="Answers to a prompt are drawn; each is compared with the mean of the others."),
    "reinforce-plus-plus": Method("prompts", price=True, says="Answers are drawn, rewarded, and compared over the batch."),
    "ppo": Method("prompts", options=("epochs: 2", "minibatches: 2",), advantage="{use: gae, lam: 0.95}", price=True,
                  says="Answers are drawn and rewarded; a critic learns what a prompt is worth."),
}  # fmt: skip
NEEDS = {
    "answers": "`prompt` and `completion`, or `messages`",
    "preferences": "`chosen` and `rejected`",
    "labels": "`prompt`, `completion` and `label`",
    "prompts": "`prompt`, or `messages`",
    "text": "`text`",
}


HOLDABLE = 100
"""The number of rows from which on a share is held out."""
TEMPLATE = """\
# {{ method.says }}
#   hookline explain {{ file }}
#   hookline run {{ file }} --out runs/{{ name }}      (the same command goes on after a stop)
#   hookline chat runs/{{ name }};  hookline export runs/{{ name }} DIR
name: {{ name }}
seed: 1
model:
  path: {{ model }}
  dtype: auto  # as the folder stores its weights; in training they have a float32 copy
{%- if c.lora %}
  adapter: {lora: {rank: 16}}  # only this is trained; with a higher rank it can learn more
{%- endif %}
data:
  rows:
    path: {{ data }}
{%- if found.shape %}
    shape: {{ found.shape }}  # how its columns are understood: docs/data.md
{%- endif %}
{%- if chat %}
    chat: true  # texts become messages, so that the model's chat template applies
{%- endif %}
{%- if held %}
    heldout: 0.05  # a share of the prompts, which training does not see
{%- endif %}
phases:
  - name: {{ c.method }}
{%- if c.method == "reward-model" %}
    model: {head: reward}
{%- endif %}
    rollout:
{%- if method.reads == "prompts" %}
      use: generate
      prompts: rows
      rows: {{ rows }}  # prompts per step
      samples_per_prompt: {{ several }}
      max_new_tokens: {{ room }}
      overlong: leave-out  # prompts that leave no room for an answer
{%- elif method.reads == "text" %}
      use: text
      path: rows
      rows: {{ rows }}  # blocks per step
      length: {{ length }}
{%- else %}
      use: {{ "preferences" if method.reads == "preferences" else "dataset" }}
      path: rows
      rows: {{ rows }}  # per step
{%- if method.reads == "labels" %}
      label: label
{%- endif %}
      overlong: truncate  # the end of answers beyond the model's context
{%- endif %}
{%- if rewards %}
    reward: [{{ rewards }}]
{%- endif %}
{%- if method.price %}
    wrap: [{use: kl-penalty, beta: 0.02}]  # the price of leaving the model that it began with
{%- endif %}
{%- if method.advantage %}
    advantage: {{ method.advantage }}
{%- endif %}
    update:
      use: {{ method.update or c.method }}
{%- if rates %}
      lr: {{ rates.lr }}  # {{ why }}
      warmup: {{ rates.warmup }}{{ "  # of the steps" if 0 < rates.warmup < 1 }}
      schedule: {{ rates.schedule }}
{%- endif %}
{%- for option in method.options %}
      {{ option }}
{%- endfor %}
    steps: {{ steps }}  # {{ "%g" | format(c.epochs) }} × {{ found.rows }} rows, {{ rows }} per step
{%- if held and rewards %}
    evaluate: [{every: {{ [1, steps // 10] | max }}, prompts: heldout, reward: [{{ rewards }}]}]
{%- elif held and method.reads != "prompts" %}
    evaluate: [{every: {{ [1, steps // 10] | max }}, prompts: heldout}]  # the loss, and what else the method measures
{%- endif %}
    save: {every: {{ [1, steps // 20] | max }}}
"""


class Init(Command):
    """Write an experiment for a method, a model's folder and a file of rows. It runs as it is; its comments say what to change."""

    class Config(hookline.Config):
        file: Annotated[str, Argument("FILE")]
        """The experiment to write, e.g. mine.yaml."""
        method: Literal[
            "sft", "causal-lm", "dpo", "simpo", "orpo", "reward-model", "kto", "grpo", "dapo", "gspo", "rloo",
            "reinforce-plus-plus", "ppo",
        ]  # fmt: skip
        """What to do."""
        model: str
        """A transformers folder, a run, or RUN/phases/NAME."""
        data: str
        """The rows: a file, a folder, a pattern, or builtin:NAME/SPLIT."""
        reward: list[str] = Field(default_factory=list)
        """Methods that draw answers: the name of a reward, FILE.py:FUNCTION, or the folder of a reward model; may be repeated."""
        lora: bool = False
        """Train a low-rank adapter instead of all weights: less memory."""
        epochs: float = Field(1.0, gt=0, le=1000)
        """How often each row is used."""
        overwrite: bool = False
        """Replace a file that is there."""

    def run(self, out: Out) -> int:
        c, method = self.config, METHODS[self.config.method]
        target = Path(c.file).expanduser()
        if target.exists() and not c.overwrite:
            raise DataError(f"{c.file} already exists", "name another file, or replace it: --overwrite")
        if (method.reads == "prompts") is not bool(c.reward):
            raise ExperimentError(
                f"'{c.method}' {'draws answers, which a reward must judge' if method.reads == 'prompts' else 'asks no reward'}",
                "--reward NAME, e.g. --reward rewards.py:correct"
                if method.reads == "prompts"
                else "leave --reward out",
            )
        found = hookline.inspect_data(c.data)
        self._fits(method, found)
        plan = _checked(target, self._text(method, found, target))
        [phase] = plan.phases
        assert phase.update is not None
        why = phase.rates.partition(": ")[2]
        _checked(target, self._text(method, found, target, phase.update.config, why))
        out.value({"file": c.file, "rows": found.rows, "steps": plan.experiment.phases[-1].steps})
        out.text(
            f"{c.file}: {c.method} on {found.rows} rows of {c.data}\n"
            f"  hookline explain {c.file}\n  hookline run {c.file} --out runs/{_word(target.stem)}"
        )
        return 0

    def _fits(self, method: Method, found: Any) -> None:
        """Raise DataError for rows that the method cannot use."""
        has = {found.kind, "labels" if "label" in found.columns and found.kind == "answers" else ""}
        has |= {"prompts"} if found.kind in ("answers", "preferences") else set()
        has |= {"answers"} if "messages" in found.columns and found.kind == "preferences" else set()
        if method.reads not in has:
            columns = ", ".join(found.columns)
            raise DataError(
                f"{self.config.data} has no rows for '{self.config.method}': it needs {NEEDS[method.reads]}; the rows have {columns}",
                f"name the columns in the section `data` of an experiment, or choose another method{_others(has)}",
            )

    def _text(self, method: Method, found: Any, target: Path, rates: Any = None, why: str = "") -> str:
        """The experiment. rates: the update's options as the plan settles them, and why they are that."""
        c = self.config
        rows = min(ROWS[method.reads], found.rows)
        steps = max(1, math.ceil(c.epochs * found.rows / rows))
        context = _context(c.model)
        rewards = ", ".join(_reward(target, one) for one in c.reward)
        return _environment().from_string(TEMPLATE).render(
            c=c,
            method=method,
            found=found,
            name=_word(target.stem),
            file=c.file,
            model=_quoted(_from(target, c.model)),
            data=_quoted(_from(target, c.data)),
            rewards=rewards,
            chat=_has_template(c.model) and not found.roles and method.reads != "text",
            held=found.rows >= HOLDABLE and 0 < len(hookline.rows(c.data, heldout=0.05)) < found.rows,
            rows=rows,
            steps=steps,
            rates=rates,
            why=why,
            several=1 if c.method in ("ppo", "reinforce-plus-plus") else 8,
            room=min(256, max(1, context // 2)),
            length=min(256, context - 1),
        )


def _checked(target: Path, text: str) -> Any:
    """Write an experiment and plan it; one that cannot run is removed."""
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as err:
        raise DataError(f"{target} cannot be written: {err.strerror}", "choose another file") from None
    try:
        return hookline.explain(target)
    except HooklineError as err:
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


def _reward(target: Path, name: str) -> str:
    """A reward as YAML: its name, or the folder of a reward model; paths are seen from the experiment's folder."""
    if (_folder(name) / "config.json").is_file():
        return f"{{use: reward-model, path: {_quoted(_from(target, name))}}}"
    file, colon, function = name.rpartition(":")
    return _quoted(f"{_from(target, file)}:{function}" if colon and file.endswith(".py") else name)


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


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
