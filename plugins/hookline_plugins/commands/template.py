"""How `hookline init` writes an experiment down: what each method needs, and the file with its comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, StrictUndefined


@dataclass(frozen=True)
class Method:
    """How a method is written down."""

    reads: Literal["answers", "preferences", "labels", "prompts", "text"]
    """What its rows must be for."""
    update: str = ""
    """The update's name, where it is not the method's."""
    options: tuple[tuple[str, Any], ...] = ()
    """Options of the update, each a line of the file."""
    advantage: str = ""
    price: bool = False
    """Whether the distance from the reference is paid for by a wrapper."""
    several: int = 8
    """Answers per prompt."""
    says: str = ""
    """What happens in a step."""


DRAWN = "Answers to a prompt are drawn and rewarded; the better ones become likelier."
CHOSEN = "Of two answers, the chosen one becomes likelier than the rejected one."
METHODS = {
    "sft": Method("answers", says="The model learns to give the answers of the rows."),
    "causal-lm": Method("text", says="The model learns to continue texts."),
    "dpo": Method("preferences", options=(("beta", 0.1),), says=CHOSEN),
    "simpo": Method("preferences", says="Of two answers, the chosen one becomes likelier per token; there is no reference model."),
    "orpo": Method("preferences", says="The chosen answer is learned, and becomes likelier than the rejected one."),
    "reward-model": Method("preferences", "bradley-terry", says="A model that scores answers: the chosen one gets the higher score."),
    "kto": Method("labels", options=(("beta", 0.1),), says="Answers that were liked become likelier, the others less likely."),
    "grpo": Method("prompts", options=(("kl_loss", 0.0),), says=DRAWN),
    "dapo": Method("prompts", says=DRAWN),
    "dr-grpo": Method("prompts", says=DRAWN),
    "gspo": Method("prompts", says=DRAWN),
    "rloo": Method("prompts", price=True, says="Answers to a prompt are drawn; each is compared with the mean of the others."),
    "reinforce-plus-plus": Method("prompts", price=True, several=1, says="Answers are drawn, rewarded, and compared over the batch."),
    "ppo": Method("prompts", options=(("epochs", 2), ("minibatches", 2)), advantage="gae", price=True, several=1,
                  says="Answers are drawn and rewarded; a critic learns what a prompt is worth."),
}  # fmt: skip

TEMPLATE = """\
# {{ method.says }}
{%- if config %}
# Written from {{ config.name }}, a configuration of {{ config.trainer }}; what has no counterpart is named at the end.
{%- endif %}
#   hookline explain {{ file }}
#   hookline run {{ file }} --out runs/{{ name }}      (the same command goes on after a stop)
#   hookline chat runs/{{ name }};  hookline export runs/{{ name }} DIR
name: {{ name }}
seed: {{ lines.value("the experiment", "seed", 1) }}
model:
  path: {{ model }}
  dtype: auto  # as the folder stores its weights; in training they have a float32 copy
{%- if lora %}
  adapter: {lora: {{ lora }}}  # only this is trained; with a higher rank it can learn more
{%- endif %}
{%- for line in lines.rest("the model") %}
  {{ line }}
{%- endfor %}
data:
  rows:
    path: {{ data }}
{%- if found.shape and not columns %}
    shape: {{ found.shape }}  # how its columns are understood: docs/data.md
{%- endif %}
{%- if columns %}
    columns: {{ columns }}
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
      {{ lines.line("a rollout", "rows", rows, "prompts per step") }}
      {{ lines.line("a rollout", "samples_per_prompt", method.several) }}
      {{ lines.line("a rollout", "max_new_tokens", room) }}
      overlong: leave-out  # prompts that leave no room for an answer
{%- elif method.reads == "text" %}
      use: text
      path: rows
      {{ lines.line("a rollout", "rows", rows, "blocks per step") }}
      {{ lines.line("a rollout", "length", length) }}
{%- else %}
      use: {{ "preferences" if method.reads == "preferences" else "dataset" }}
      path: rows
      {{ lines.line("a rollout", "rows", rows, "per step") }}
{%- if method.reads == "labels" %}
      label: label
{%- endif %}
      overlong: truncate  # the end of answers beyond the model's context
{%- endif %}
{%- for line in lines.rest("a rollout") %}
      {{ line }}
{%- endfor %}
{%- if rewards %}
    reward: [{{ rewards }}]
{%- endif %}
{%- if price %}
    wrap: [{use: kl-penalty, beta: {{ lines.value("a wrapper", "beta", 0.02) }}}]  # the price of leaving the model that it began with
{%- endif %}
{%- if method.advantage %}
    advantage:
      use: {{ method.advantage }}
      {{ lines.line("an advantage", "lam", 0.95) }}
{%- for line in lines.rest("an advantage") %}
      {{ line }}
{%- endfor %}
{%- endif %}
    update:
      use: {{ method.update or c.method }}
{%- if rates %}
      {{ lines.line("an update", "lr", rates.lr, why) }}
      {{ lines.line("an update", "warmup", rates.warmup, "of the steps" if 0 < rates.warmup < 1 else "") }}
      {{ lines.line("an update", "schedule", rates.schedule) }}
{%- endif %}
{%- for option, value in method.options %}
      {{ lines.line("an update", option, value) }}
{%- endfor %}
{%- for line in lines.rest("an update") %}
      {{ line }}
{%- endfor %}
    {{ lines.line("a phase", "steps", steps, passes) }}
{%- if held and rewards %}
    evaluate: [{every: {{ [1, steps // 10] | max }}, prompts: heldout, reward: [{{ rewards }}]}]
{%- elif held and method.reads != "prompts" %}
    evaluate: [{every: {{ [1, steps // 10] | max }}, prompts: heldout}]  # the loss, and what else the method measures
{%- endif %}
    save: {every: {{ [1, steps // 20] | max }}}
trackers: [console, report]  # also wandb, tensorboard, jsonl
{%- if config and config.left %}

# Without a counterpart here, or decided otherwise:
{%- for line in config.left %}
#   {{ line }}
{%- endfor %}
{%- endif %}
"""


class Line(NamedTuple):
    """The value of an option, and what is said beside it."""

    value: Any
    note: str = ""


class Lines:
    """The options of the file: those of the template, where a configuration does not give another value."""

    def __init__(self, given: Mapping[tuple[str, str], Line]) -> None:
        self.given = dict(given)
        """(place, option) → what the configuration says and the template has not written yet."""

    def line(self, place: str, option: str, value: Any, note: str = "") -> str:
        line = self.given.pop((place, option), Line(value, note))
        return f"{option}: {shown(line.value)}{f'  # {line.note}' if line.note else ''}"

    def value(self, place: str, option: str, value: Any) -> str:
        return shown(self.given.pop((place, option), Line(value)).value)

    def rest(self, place: str) -> Iterator[str]:
        """What the configuration says of a place beyond what the template writes there."""
        for _, option in [key for key in self.given if key[0] == place]:
            yield self.line(place, option, None)


def shown(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, float):
        return re.sub(r"^(-?\d+)e", r"\1.0e", str(value))  # 1e-05 would be text to readers of YAML 1.1
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value, ensure_ascii=False)


def rendered(**about: Any) -> str:
    """The experiment as text."""
    return _environment().from_string(TEMPLATE).render(**about)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True)
