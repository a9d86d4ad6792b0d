"""A configuration of another trainer as one flat mapping: the YAML or JSON file of TRL, verl or OpenRLHF, or the command of a script."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hookline import DataError, ExperimentError

MARKS = {
    "verl": "actor_rollout_ref. algorithm. reward_model. custom_reward_function. trainer. data.train_files "
    "data.train_batch_size data.max_response_length optim.lr model.partial_pretrain",
    "OpenRLHF": "algo. ds. ckpt. rollout. train.batch_size train.micro_batch_size actor.model_name_or_path pretrain "
    "actor_learning_rate critic_learning_rate micro_train_batch_size micro_rollout_batch_size rollout_batch_size "
    "train_batch_size init_kl_coef n_samples_per_prompt zero_stage generate_max_len prompt_max_len input_key max_len save_path "
    "remote_rm_url prompt_data reward_pretrain max_epochs num_episodes adv_estimator advantage_estimator",
    "TRL": "model_name_or_path dataset_name per_device_train_batch_size gradient_accumulation_steps num_train_epochs "
    "learning_rate output_dir lr_scheduler_type warmup_steps warmup_ratio logging_steps max_steps bf16 report_to num_generations "
    "max_completion_length max_prompt_length max_length reward_funcs use_peft lora_r beta epsilon loss_type num_iterations",
}
"""Trainer → keys, and beginnings of keys, by which its configurations are known."""
COMMAND = re.compile(r"(?:\S*/)?trl|(?:openrlhf\.cli|verl\.trainer|verl)\.\S+|\S+\.py")
"""The word of a command line after which a trainer's own words begin."""
ENDS = ("|", "&&", "||", ";", "&", ">", ">>", "2>&1", "2>")


@dataclass(frozen=True)
class Foreign:
    """What a configuration says."""

    name: str
    """The file, as the user named it."""
    trainer: str
    """TRL, verl or OpenRLHF."""
    values: Mapping[str, Any]
    """`actor_rollout_ref.actor.optim.lr` → 1e-6: keys of nested mappings are joined by dots."""
    script: str = ""
    """What the command starts, e.g. `dpo`, `openrlhf.cli.train_ppo_ray`; empty for a file of values alone."""
    processes: int = 1
    """How many processes the command starts, as far as it says."""


@dataclass
class _Command:
    script: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    processes: int = 1


def read(name: str) -> Foreign:
    """Read a configuration. Raises DataError for a file that cannot be read, ExperimentError where no trainer knows its keys."""
    path = Path(name).expanduser()
    text = _text(path, name)
    if path.suffix in (".yaml", ".yml", ".json"):
        found = _Command(values=_mapping(text, path, name))
    else:
        found = next(_commands(text, name), None) or _Command()
        if not found.values:
            raise ExperimentError(
                f"{name} starts no trainer: it has no command with trl, verl or openrlhf and their options",
                "name a YAML or JSON configuration, or a script with one command line, e.g. python -m verl.trainer.main_ppo KEY=VALUE",
            )
        below = found.values.pop("config", None)
        if isinstance(below, str):
            near = path.parent / below
            shown = str(near) if near.exists() else below
            found.values = {**_mapping(_text(Path(shown), shown), Path(shown), shown), **found.values}
    values = {key: _resolved(value, found.values) for key, value in found.values.items()}
    return Foreign(name, _trainer(name, found.script, values), values, found.script, found.processes)


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as err:
        raise DataError(f"{name} cannot be read: {err.strerror}", "name a configuration that is there") from None
    except UnicodeDecodeError as err:
        raise DataError.not_utf8(err, name) from None


def _mapping(text: str, path: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except ValueError as err:
        raise DataError(f"{name} is not JSON: {err}", "correct the file") from None
    except yaml.YAMLError as err:
        where = getattr(err, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise DataError(f"{name}{line}: {getattr(err, 'problem', None) or 'it is not YAML'}", "correct the file") from None
    if not isinstance(found, dict) or not found:
        raise DataError(f"{name} holds no keys with values", "name a configuration of TRL, verl or OpenRLHF")
    return dict(_flat(found))


def _flat(found: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", _meant(value) if isinstance(value, str) else value


def _meant(text: str) -> Any:
    """A value as it is typed on a command line; `1e-6` is a number, which YAML 1.1 takes for text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    low = text.strip().lower()
    if low in ("true", "false"):
        return low == "true"
    if low in ("none", "null", ""):
        return None
    if text[0] in "[{":
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def _resolved(value: Any, values: Mapping[str, Any]) -> Any:
    """The value that Hydra's `${a.b}` means; at most a few in a row."""
    for _ in range(5):
        named = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if not named or named[1] not in values:
            return value
        value = values[named[1]]
    return value


# -- scripts


def _commands(text: str, name: str) -> Iterator[_Command]:
    """The commands of a script that start a trainer."""
    variables = {"HOME": os.path.expanduser("~")}
    for line in re.sub(r"\\[ \t]*\r?\n", " ", text).splitlines():
        try:
            words = [_substituted(word, variables) for word in shlex.split(line, comments=True)]
        except ValueError:
            continue  # a quote that ends in another line: no command of a trainer
        while words and (words[0] == "export" or re.fullmatch(r"[A-Za-z_]\w*=.*", words[0])):
            key, equals, value = words.pop(0).partition("=")
            if equals:
                variables[key] = value
        at = next((i for i, word in enumerate(words) if COMMAND.fullmatch(word)), None)
        if at is not None:
            yield _command(words[:at], words[at:], name)


def _substituted(word: str, variables: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name, default = found[1] or found[3], found[2]
        return variables.get(name, default if default is not None else found[0])

    return re.sub(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}|\$([A-Za-z_]\w*)", value, word)


def _command(before: list[str], words: list[str], name: str) -> _Command:
    found = _Command(script=words.pop(0))
    if found.script.rpartition("/")[2] == "trl" and words:
        found.script = words.pop(0)
    launched = _options(before)
    count = next((launched[key] for key in ("num_processes", "nproc_per_node", "num_gpus") if key in launched), 1)
    found.processes = count if isinstance(count, int) and count > 0 else 1
    found.values = _options(words)
    if "num_processes" in found.values and found.script in ("sft", "dpo", "kto", "grpo", "rloo", "reward"):
        found.processes = found.values.pop("num_processes")  # `trl` hands it to accelerate
    return found


def _options(words: list[str]) -> dict[str, Any]:
    """`--key value`, `--key=value`, `--flag`, `key=value` and `+key=value`."""
    found: dict[str, Any] = {}
    key, many = "", list[Any]()
    for word in [*words, "--"]:
        if word in ENDS:
            word = "--"
        if not word.startswith("--") and key:
            many.append(_meant(word))
            continue
        if key:
            found[key] = True if not many else many[0] if len(many) == 1 else many
            key, many = "", []
        if word == "--":
            if found:
                break
            continue
        name, equals, value = word.lstrip("+~-" if "=" in word or word.startswith("--") else "").partition("=")
        if equals:
            found[name.replace("-", "_")] = _meant(value)
        elif word.startswith("--"):
            key = name.replace("-", "_")
    return found


def _trainer(name: str, script: str, values: Mapping[str, Any]) -> str:
    """Whose configuration it is: the command's, or the trainer that knows most keys."""
    by_script = {"openrlhf": "OpenRLHF", "verl": "verl"}
    named = next((trainer for word, trainer in by_script.items() if word in script), None)
    if named:
        return named
    counts = {
        trainer: sum(key.startswith(mark) if mark.endswith(".") else key == mark for key in values for mark in marks.split())
        for trainer, marks in MARKS.items()
    }
    best = max(counts, key=lambda trainer: counts[trainer])
    if not counts[best]:
        raise ExperimentError(
            f"{name} is not a configuration of TRL, verl or OpenRLHF: none of them has the keys {', '.join(list(values)[:4])}",
            "name such a configuration, or leave --from out and say --method, --model and --data",
        )
    return best
