"""How functions of other frameworks are called: recognised by the names of their parameters, and given what they name.

| style | recognised by | called | with |
|---|---|---|---|
| `trl` | `completions` or `completion_ids` | once per batch | lists: prompts, completions, columns |
| `swift` | `completions`, of a class or object | once per batch | lists; completions are always text |
| `verl` | `solution_str`, or `solution_strs` for a batch | per row, or once per batch | data_source, ground_truth, extra_info |
| `openrlhf` | `queries` | per row, with lists of one | queries, prompts, labels |
| `row` | `completion`, `response` or `prediction` | per row | prompt, record, columns |
| `verifiers` | `state` or `parser`; `states`, or `completions` and `parser`, for a batch | per row, or once per batch | its names |
| `inspect` | `state` and `target` | per row | a TaskState, a Target |
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any

from hookline import DataError, ExperimentError, Record, Rollout, prompt_messages
from hookline_plugins.rewards.frameworks import Parser, Target, TaskState, state_of

MARKS = {
    "completions": "trl", "completion_ids": "trl", "solution_str": "verl", "solution_strs": "verl", "queries": "openrlhf",
    "states": "verifiers", "parser": "verifiers",
}  # fmt: skip
"""The parameter that gives a style away."""
VERIFIERS = ("prompt", "completion", "answer", "state", "info", "task")
"""The names that verifiers passes; with an s, those of a group."""
ROW = ("completion", "response", "prediction")
"""The parameters of a `row` function that get the answer; they count only where no other style is recognised."""
GIVEN = {
    "trl": ("prompts", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra"),
    "swift": ("prompts", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra"),
    "verl": ("solution_str",),
    "verl batch": ("solution_strs",),
    "openrlhf": ("queries", "prompts"),
    "row": (*ROW, "prompt", "query", "record", "completion_ids", "tokenized_prediction", "log_metric"),
    "verifiers": (*VERIFIERS, "parser"),
    "verifiers batch": (*(f"{name}s" for name in VERIFIERS), "parser"),
    "inspect": ("state",),
}
"""The parameters that do not come from a column of the data."""
COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "verl": {"ground_truth": ("ground_truth", "reward_model.ground_truth")},
    "verl batch": {
        "ground_truths": ("ground_truth", "reward_model.ground_truth"), "data_sources": ("data_source",),
        "extra_infos": ("extra_info",),
    },
    "openrlhf": {"labels": ("labels", "label")},
    "row": {"label": ("label", "ground_truth")},
}  # fmt: skip
"""Where a parameter is found, if not in the column of its name."""
NONE: Mapping[str, tuple[str, ...]] = {}
CALLED = {
    "trl": "as in TRL, once per batch", "swift": "as in ms-swift, once per batch", "verl": "as in verl, per answer",
    "verl batch": "as in verl, once per batch", "openrlhf": "as in OpenRLHF, per answer", "row": "per answer",
    "verifiers": "as in verifiers, per answer", "verifiers batch": "as in verifiers, once per batch",
    "inspect": "as in inspect_ai, per answer",
}  # fmt: skip
"""How functions of each style are called, for `explain`."""
STYLES = ("trl", "verl", "openrlhf", "swift", "row", "verifiers", "inspect")
ELSEWHERE = {
    "trace": "verifiers 1.0 gives it a trace of its own engine",
    "observation": "OpenEnv gives it an action and what its server observed",
}
"""Parameters of functions that need their own framework, and why."""
NOT_PASSED_ON = frozenset({"prompt", "completion", "completion_ids"})
"""Columns that TRL does not pass to `**kwargs`."""
ABSENT = object()


@dataclass(frozen=True)
class Call:
    """One call of a function, for some rows of a batch."""

    rows: Sequence[int]
    keywords: Mapping[str, Any]
    logs: tuple[str, ...] = ()
    """The parameters that get a function which logs."""


class Signature:
    """One function: its style, and what its parameters get."""

    def __init__(
        self,
        function: Callable[..., Any],
        who: str,
        style: str = "auto",
        arguments: Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        """who: file and function, for messages. Raises ExperimentError for a signature that fits nothing."""
        self.who, self.arguments, self.columns = who, dict(arguments or {}), dict(columns or {})
        try:
            found = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise ExperimentError(f"the signature of {who} cannot be read", "wrap it: def mine(completions, **columns): …") from None
        named = [one for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY, one.POSITIONAL_ONLY)]
        if closed := [one.name for one in named if one.kind == one.POSITIONAL_ONLY]:
            raise ExperimentError(f"{who} takes '{closed[0]}' by position only", "remove the / from its parameters")
        self.names = [one.name for one in named]
        self.required = {one.name for one in named if one.default is one.empty}
        self.open = any(one.kind == one.VAR_KEYWORD for one in found)
        """Whether it takes `**kwargs`."""
        function_like = inspect.isroutine(function) or hasattr(function, "func")
        self.style = self._decide(style, function_like)
        self.batched = self.style in ("trl", "swift", "verl batch", "verifiers batch")
        self.parser = _parser_of(function)
        self._refuse_strangers()

    # -- which style

    def _decide(self, style: str, function_like: bool) -> str:
        if style == "auto":
            marks = self._marks()
            if len(marks) != 1:
                saw = " and ".join(f"'{name}' ({style})" for style, name in marks.items())
                if marks:
                    text, hint = f"has the parameters {saw}, which belong to different signatures", f"set `signature`: {', '.join(STYLES)}"
                elif strange := next((name for name in self.names if name in ELSEWHERE), None):
                    text = f"cannot be called here: {ELSEWHERE[strange]} ('{strange}')"
                    hint = "move its arithmetic into a function of the answer: def mine(completion, answer): …"
                else:
                    text = f"has no parameter that gets the answer; its parameters are {', '.join(self.names) or 'none'}"
                    hint = f"call one {', '.join([*MARKS, *ROW])}; see docs/rewards.md"
                raise ExperimentError(f"{self.who} {text}", hint)
            [style] = marks
            style = "swift" if style == "trl" and not function_like else style
        batched = {"verl": ("solution_strs",), "verifiers": ("states", "completions")}.get(style, ())
        return f"{style} batch" if any(name in self.names for name in batched) else style

    def _marks(self) -> dict[str, str]:
        """The styles that the parameters belong to, each with the parameter that says so."""
        names = [name for name in self.names if not self._mapped(name)]
        marks = {MARKS[name]: name for name in names if name in MARKS}
        if "verifiers" in marks:  # its group functions have `completions` like TRL's
            marks.pop("trl", None)
        answer = next((name for name in names if name in ROW), None)
        if marks or "state" not in names:
            return marks or ({"row": answer} if answer else {})
        return {"verifiers": "state"} if answer or "target" not in self.names else {"inspect": "target"}

    def _refuse_strangers(self) -> None:
        known = self.names
        for option, given in (("arguments", self.arguments), ("columns", self.columns)):
            for name in given:
                if name not in known and not self.open:
                    close = get_close_matches(name, known, n=1)
                    raise ExperimentError(
                        f"{self.who} has no parameter '{name}', which `{option}` names{f'; did you mean {close[0]!r}?' if close else ''}",
                        f"its parameters: {', '.join(known)}",
                    )

    # -- what rows must have

    def check(self, record: Record, where: str) -> None:
        """Raise DataError if a parameter without a default gets nothing from a row."""
        for name in self.names:
            if name in self.required and not self._given(name) and self.column(name, record) is ABSENT:
                has = [str(key) for key in record]
                source = self.columns.get(name)
                close = get_close_matches(name, has, n=1)
                what = f"column '{source}', which `columns` names for '{name}'" if source else f"column '{name}', which is a parameter"
                hint = f"columns: {{{name}: {close[0] if close else 'COLUMN'}}} gives another column, arguments: {{{name}: …}} a constant"
                raise DataError(f"{where}: there is no {what} of {self.who}; the row has {', '.join(has) or 'none'}", hint)

    def _given(self, name: str) -> bool:
        return name in self.arguments or (name in GIVEN[self.style] and name not in self.columns)

    def column(self, name: str, record: Record) -> Any:
        """What a row has for a parameter; ABSENT if nothing."""
        paths = (self.columns[name],) if name in self.columns else COLUMNS.get(self.style, NONE).get(name, (name,))
        return next((value for path in paths if (value := at(record, path)) is not ABSENT), ABSENT)

    # -- the calls

    def calls(self, rollout: Rollout, special: bool, state: SimpleNamespace) -> Iterator[Call]:
        """The calls that judge a batch, in the order of its rows."""
        rows = range(len(rollout))
        texts = [_answer(rollout, row, special) for row in rows]
        if not self.batched:
            for row in rows:
                yield Call((row,), self._of_row(rollout, row, texts[row]), self._logs())
            return
        records = rollout.records
        values: dict[str, Any] = {}
        if self.style == "trl":
            values["completions"] = [
                [{"role": "assistant", "content": text}] if _is_chat(record) else text for text, record in zip(texts, records)
            ]
            values["prompts"] = [prompt_of(rollout, row) for row in rows]
        elif self.style == "swift":
            values |= {"completions": texts, "prompts": [prompt_of(rollout, row) for row in rows]}
        elif self.style == "verifiers batch":
            each = [self._as_in_verifiers(rollout, row, texts[row]) for row in rows]
            values |= {f"{name}s": [one[name] for one in each] for name in VERIFIERS if not self._mapped(f"{name}s")}
            values["parser"] = self.parser
        else:
            values["solution_strs"] = texts
        if self._takes("completion_ids"):
            values["completion_ids"] = [rollout.response_ids(row) for row in rows]
        values["trainer_state"] = state
        for name in self._column_names(records):
            found = [self.column(name, record) for record in records]
            if not all(one is ABSENT for one in found):
                values[name] = [None if one is ABSENT else one for one in found]
        yield Call(tuple(rows), self._taken(values), self._logs())

    def _of_row(self, rollout: Rollout, row: int, text: str) -> dict[str, Any]:
        record = rollout.records[row]
        values: dict[str, Any] = {}
        for name in self._column_names([record]):
            if (value := self.column(name, record)) is not ABSENT:
                values[name] = [value] if self.style == "openrlhf" else value
        if self.style == "openrlhf":
            ids = [*rollout.prompt_ids(row), *rollout.response_ids(row)]
            query = rollout.decode(ids, special=True)  # type: ignore[call-arg]
            values |= {"queries": [query], "prompts": [rollout.prompt_text(row, special=True)]}
        elif self.style == "verl":
            values["solution_str"] = text
        elif self.style == "verifiers":
            given = {**self._as_in_verifiers(rollout, row, text), "parser": self.parser}
            values |= {name: value for name, value in given.items() if not self._mapped(name)}
        elif self.style == "inspect":
            values["target"] = target = Target(values.get("target", ""))
            values["state"] = TaskState(record, prompt_of(rollout, row), text, target, int(rollout.sample_B[row]))
        else:
            ids = rollout.response_ids(row) if self._takes("completion_ids") or self._takes("tokenized_prediction") else []
            prompt = prompt_of(rollout, row)
            given = dict.fromkeys(ROW, text) | {"prompt": prompt, "query": prompt, "record": dict(record)}
            given |= {"completion_ids": ids, "tokenized_prediction": ids}
            values |= {name: value for name, value in given.items() if name in self.names and name not in self.columns}
        return self._taken(values)

    def _as_in_verifiers(self, rollout: Rollout, row: int, text: str) -> dict[str, Any]:
        """What verifiers passes for a row by name: messages, unless the prompt is text."""
        record, prompt = rollout.records[row], prompt_of(rollout, row)
        answer = self.column("answers" if "answers" in self.columns else "answer", record)
        completion: Any = [{"role": "assistant", "content": text}] if _is_chat(record) else text
        state = state_of(record, prompt, completion, "" if answer is ABSENT else answer)
        return {name: state if name == "state" else state[name] for name in VERIFIERS}

    def _mapped(self, name: str) -> bool:
        """Whether `columns` or `arguments` fill a parameter."""
        return name in self.columns or name in self.arguments

    def _takes(self, name: str) -> bool:
        return name in self.names or (self.open and self.style in ("trl", "swift") and name in GIVEN[self.style])

    def _column_names(self, records: Sequence[Record]) -> list[str]:
        """The parameters that columns fill, and, for `**kwargs`, all other columns; verl passes no columns there."""
        named = [name for name in self.names if not self._given(name)]
        more = [*self.columns]
        if self.open and self.style in ("trl", "swift", "row", "verifiers"):
            more += [str(key) for record in records for key in record if key not in NOT_PASSED_ON]
        return [name for name in dict.fromkeys([*named, *more]) if not self._given(name)]

    def _taken(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**values, **self.arguments}.items() if self.open or name in self.names}

    def _logs(self) -> tuple[str, ...]:
        """The functions that log; `**kwargs` gets them where TRL would pass them."""
        return tuple(name for name in ("log_metric", "log_extra") if name in GIVEN[self.style] and self._takes(name))


def _parser_of(function: Callable[..., Any]) -> Any:
    """The `parser` of the function's file, if it has one as in verifiers; else a plain one."""
    inner = inspect.unwrap(function)
    known = getattr(inner if hasattr(inner, "__globals__") else type(inner).__call__, "__globals__", {})
    return known["parser"] if hasattr(known.get("parser"), "parse_answer") else Parser()


def at(record: Record, path: str) -> Any:
    """A column, or a field within one: `reward_model.ground_truth`."""
    if path in record:
        return record[path]
    found: Any = record
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return ABSENT
        found = found[key]
    return found


def _is_chat(record: Record) -> bool:
    return prompt_messages(record) is not None


def prompt_of(rollout: Rollout, row: int) -> Any:
    """A row's prompt: a list of messages, or text."""
    asked = prompt_messages(rollout.records[row], f"row {row + 1}")
    return _text_of(rollout, row) if asked is None else asked


def _text_of(rollout: Rollout, row: int) -> str:
    prompt = rollout.records[row].get("prompt")
    return prompt if isinstance(prompt, str) else rollout.prompt_text(row)


def _answer(rollout: Rollout, row: int, special: bool) -> str:
    return rollout.response_text(row, special=special)
