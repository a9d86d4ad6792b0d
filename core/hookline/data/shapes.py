"""The shapes of rows that users have: which columns each has, and how they become the fields that Hookline reads.

Hookline reads `prompt`, `completion`, `chosen`, `rejected`, `messages`, `label` and `text`. A file with these columns is read
as it is. Other columns are recognised by their names and types; a file that two shapes fit is refused. All columns of a row
stay in its record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from hookline.batch.stages import Record
from hookline.data.messages import speaker
from hookline.errors import DataError, nearest

__all__ = ["FIELDS", "SHAPES", "Shape", "nearly", "shape_of"]

FIELDS = ("prompt", "completion", "chosen", "rejected", "messages", "text", "label", "tools")
"""The fields that Hookline reads."""
CONVERSATIONS = ("messages", "conversations")
PAIR = ("chosen", "rejected")
ANSWER = "\n\nAssistant:"
Fields = dict[str, Any]
Test = Callable[[Any], bool]


@dataclass(frozen=True)
class Shape:
    """One shape of rows."""

    name: str
    columns: Mapping[str, Test]
    """The columns that every row has, and what their values must be."""
    gives: tuple[str, ...]
    """The fields that are made from them."""
    make: Callable[[Any], Fields | None]
    """The fields of a row; None if the row says nothing, e.g. a comparison that is a tie."""
    without: tuple[str, ...] = ()
    """Columns that belong to another shape."""
    by_name: bool = False
    """Rows are read in this shape only where the user names it."""

    def fits(self, record: Record) -> bool:
        """Whether a row has this shape; not if columns outside the shape already are the fields that it gives."""
        whole = () if "chosen" in self.gives else CONVERSATIONS  # a file with conversations is read by these
        other = {*self.gives, *self.without, *whole} - self.columns.keys()
        return not any(record.get(name) is not None for name in other) and all(
            name in record and holds(record[name]) for name, holds in self.columns.items()
        )

    def read(self, record: Record, where: str) -> Record | None:
        """The row with the fields that Hookline reads. Raises DataError for a row that lacks a column of the shape."""
        for name, holds in self.columns.items():
            if not holds(record.get(name)):
                what = "is missing" if record.get(name) is None else f"is {type(record[name]).__name__}"
                raise DataError(
                    f"{where}: '{name}' {what}, unlike in rows of the shape '{self.name}'",
                    f"the row has: {', '.join(record) or 'nothing'}",
                )
        try:
            made = self.make(record)
        except (LookupError, TypeError, ValueError, AttributeError) as err:
            raise DataError(
                f"{where} does not have the shape '{self.name}': {_why(err)}",
                "correct the row, or name another `shape`",
            ) from None
        if made is None:
            return None
        return {name: value for name, value in {**record, **made}.items() if value is not None or name not in made}


def shape_of(rows: Sequence[Record], where: str, name: str | None = None) -> Shape | None:
    """The shape of the first rows of a file; None if they have the fields that Hookline reads.

    name: the shape that the user names. Raises DataError if it is unknown, or if the columns fit two shapes.
    """
    if name is not None:
        if name not in SHAPES:
            raise DataError(
                f"{where}: there is no shape '{name}'{nearest(name, SHAPES)}", f"shapes: {', '.join(sorted(SHAPES))}"
            )
        return SHAPES[name]
    fitting = [shape for shape in SHAPES.values() if rows and not shape.by_name and all(map(shape.fits, rows))]
    fitting = [one for one in fitting if not any(one.columns.keys() < other.columns.keys() for other in fitting)]
    for field in FIELDS:
        rivals = [shape for shape in fitting if field in shape.gives]
        if len(rivals) > 1:
            columns = " or ".join(f"{', '.join(shape.columns)} (shape '{shape.name}')" for shape in rivals)
            raise DataError(
                f"{where}: its '{field}' may come from {columns}",
                f"say which: `shape: {rivals[0].name}`, or `columns: {{{field}: COLUMN}}`, in the section `data`",
            )
    return fitting[0] if fitting else None


def nearly(columns: Collection[str], field: str) -> str:
    """A sentence about the shape that columns nearly have, among those that give a field; empty if none is near."""
    lacking = {
        shape.name: [name for name in shape.columns if name not in columns]
        for shape in SHAPES.values()
        if field in shape.gives and any(name in columns for name in shape.columns)
    }
    near = min(lacking, key=lambda name: len(lacking[name]), default=None)
    if near is None or not lacking[near]:
        return ""
    return f"rows of the shape '{near}' also have {' and '.join(map(repr, lacking[near]))}"


def _why(err: Exception) -> str:
    return f"there is no {err}" if isinstance(err, LookupError) else str(err)


# -- what columns hold


def text(value: Any) -> bool:
    return isinstance(value, str)


def number(value: Any) -> bool:
    """Whether a value is a number or a truth value, or the text of one, as in CSV."""
    return isinstance(value, int | float) or (isinstance(value, str) and _number(value) is not None)


def _number(value: Any) -> float | None:
    """A number, a truth value, or the text of one; None for anything else."""
    words = {"true": 1.0, "false": 0.0}
    try:
        return words[value.lower()] if isinstance(value, str) and value.lower() in words else float(value)
    except (TypeError, ValueError):
        return None


def items(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def message(value: Any) -> bool:
    return isinstance(value, dict) and bool({"value", "content"} & value.keys())


def mapping(value: Any) -> bool:
    return isinstance(value, dict)


def dialogue(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith(("Human:", "Assistant:"))


def answers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


# -- how they become fields


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def _asked(record: Record, question: str) -> Any:
    """The prompt of a question, with the turns before it: text, or messages where there is a history."""
    before: list[dict[str, str]] = []
    for asked, answered in record.get("history") or ():
        before += [user(asked), assistant(answered)]
    return [*before, user(question)] if before else question


def _instructed(record: Record) -> Any:
    parts = (record["instruction"], record.get("input"))
    return _asked(record, "\n".join(part for part in parts if part))


def _said(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _alpaca(record: Record) -> Fields:
    return {"prompt": _instructed(record), "completion": record["output"]}


def _instructed_pair(record: Record) -> Fields:
    return {"prompt": _instructed(record), "chosen": _said(record["chosen"]), "rejected": _said(record["rejected"])}


def _queried(record: Record) -> Fields:
    prompt = _asked(record, record["query"])
    if record.get("rejected_response"):
        return {"prompt": prompt, "chosen": record["response"], "rejected": record["rejected_response"]}
    return {"prompt": prompt, "completion": record["response"]}


def _liked(record: Record) -> Fields:
    turns = record.get("conversations") or record["messages"]
    if len(turns) < 2:
        raise ValueError("a labelled conversation needs two messages or more")
    return {"prompt": turns[:-1], "completion": turns[-1:], "label": bool(_number(record["kto_tag"]))}


def _beside(record: Record) -> Fields:
    """A conversation with the answer that lost in a column of its own."""
    lost = record.get("rejected_response")
    turns = record["messages"]
    rejected = record["rejected_messages"] if lost is None else [*turns[:-1], assistant(lost)]
    return {"chosen": turns, "rejected": rejected}


def _whole(record: Record) -> Fields:
    """A prompt as text beside answers as messages, which may repeat the prompt."""
    prompt, chosen, rejected = record["prompt"], record["chosen"], record["rejected"]
    if all(speaker(turns[0]) == "assistant" for turns in (chosen, rejected)):
        return {"prompt": [user(prompt)], "chosen": chosen, "rejected": rejected}
    return {"prompt": None, "chosen": chosen, "rejected": rejected}


def _human_assistant(record: Record) -> Fields | None:
    """Dialogues of `Human:` and `Assistant:`; the prompt ends where the last answer begins before which both are equal.

    None if there is no such answer; a few rows of HH-RLHF are so.
    """
    chosen, rejected = record["chosen"], record["rejected"]
    ends = [at.end() for at in re.finditer(ANSWER, chosen) if rejected[: at.end()] == chosen[: at.end()]]
    if not ends:
        return None
    return {"prompt": chosen[: ends[-1]], "chosen": chosen[ends[-1] :], "rejected": rejected[ends[-1] :]}


def _human_assistant_messages(record: Record) -> Fields | None:
    found = _human_assistant(record)
    if found is None:
        return None
    said = {name: [assistant(found[name].strip())] for name in PAIR}
    return {"prompt": _turns(found["prompt"].removesuffix(ANSWER)), **said}


def _turns(dialogue: str) -> list[dict[str, str]]:
    """The messages of a dialogue whose lines begin with `Human:` and `Assistant:`."""
    parts = re.split(r"(?:^|\n\n)(Human|Assistant):", dialogue)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2])]


def _preferred(record: Record) -> Fields:
    asked = record["input"]
    tools = {"tools": asked["tools"]} if asked.get("tools") else {}
    chosen, rejected = record["preferred_output"], record["non_preferred_output"]
    return {"prompt": asked["messages"], "chosen": chosen, "rejected": rejected, **tools}


def _best_and_worst(prompt: Any, said: Sequence[str], worth: Sequence[float]) -> Fields | None:
    """The best and the worst answer; None if all are equal, one is not judged, or there are fewer than two."""
    if len(said) < 2 or any(one != one for one in worth) or max(worth) == min(worth):
        return None
    return {"prompt": prompt, "chosen": said[worth.index(max(worth))], "rejected": said[worth.index(min(worth))]}


def _rated(record: Record) -> Fields | None:
    """Answers with ratings of several aspects, as in UltraFeedback: their mean decides.

    Its `overall_score` is not used: some thousand rows have 10 where 1 is meant.
    """
    said = [one["response"] for one in record["completions"]]
    worth = [_rating(one) for one in record["completions"]]
    return _best_and_worst(record["instruction"], said, worth)


def _rating(answer: Mapping[str, Any]) -> float:
    named = answer.get("annotations") or {}
    ratings = [_number(one["Rating"] if isinstance(one, dict) else one) for one in named.values()]
    known = [one for one in ratings if one is not None]
    return sum(known) / len(known) if known else nan


def _ranked(record: Record) -> Fields | None:
    """Answers with ranks, as in Nectar: 1 is the best."""
    return _best_and_worst(
        record["prompt"],
        [one["answer"] for one in record["answers"]],
        [-float(one["rank"]) for one in record["answers"]],
    )


def _completions(record: Record) -> Fields | None:
    """Answers with ranks, as in NeMo-RL: 0 is the best."""
    said = [one["completion"] for one in record["completions"]]
    return _best_and_worst(record["context"], said, [-float(one["rank"]) for one in record["completions"]])


def _two(
    first: str, second: str, column: str, tie: float, prompt: str, less: bool = False
) -> Callable[[Record], Fields | None]:
    """Two answers in columns of their own: the second is better where the column is above a tie, or below it (less)."""

    def make(record: Record) -> Fields | None:
        worth = _number(record[column])
        if worth is None or worth == tie:
            return None
        won, lost = (second, first) if (worth < tie) is less else (first, second)
        return {"prompt": record[prompt], "chosen": record[won], "rejected": record[lost]}

    return make


def _fought(record: Record) -> Fields | None:
    """Two conversations and which model won, as in Chatbot Arena."""
    won = {"model_a": ("a", "b"), "model_b": ("b", "a")}.get(record["winner"])
    if won is None:
        return None
    return {"chosen": record[f"conversation_{won[0]}"], "rejected": record[f"conversation_{won[1]}"]}


ASKED = ("prompt", "completion")
COMPARED = ("prompt", *PAIR)

SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("alpaca", {"instruction": text, "output": text}, ASKED, _alpaca),
        Shape("alpaca-kto", {"instruction": text, "output": text, "kto_tag": number}, (*ASKED, "label"),
              lambda r: {**_alpaca(r), "label": bool(_number(r["kto_tag"]))}),
        Shape("alpaca-pairs", {"instruction": text, "chosen": text, "rejected": text}, COMPARED, _instructed_pair),
        Shape("question-answer", {"question": text, "answer": text}, ASKED,
              lambda r: {"prompt": r["question"], "completion": r["answer"]}),
        Shape("question-pairs", {"question": text, "chosen": text, "rejected": text}, COMPARED,
              lambda r: {"prompt": r["question"], "chosen": r["chosen"], "rejected": r["rejected"]}),
        Shape("question", {"question": text}, ("prompt",), lambda r: {"prompt": r["question"]}),
        Shape("problem-solution", {"problem": text, "solution": text}, ASKED,
              lambda r: {"prompt": r["problem"], "completion": r["solution"]}),
        Shape("problem", {"problem": text}, ("prompt",), lambda r: {"prompt": r["problem"]}),
        Shape("query-response", {"query": text, "response": text}, ASKED, _queried, ("rejected_response",)),
        Shape("query-pairs", {"query": text, "response": text, "rejected_response": text}, COMPARED, _queried),
        Shape("prompt-response", {"prompt": lambda value: value is not None, "response": text}, ("completion",),
              lambda r: {"completion": r["response"]}),
        Shape("input-output", {"input": text, "output": text}, ASKED,
              lambda r: {"prompt": r["input"], "completion": r["output"]}, ("instruction",)),
        Shape("sharegpt-pairs", {"conversations": items, "chosen": message, "rejected": message}, COMPARED,
              lambda r: {"prompt": r["conversations"], "chosen": [r["chosen"]], "rejected": [r["rejected"]]}),
        Shape("sharegpt-kto", {"conversations": items, "kto_tag": number}, (*ASKED, "label"), _liked),
        Shape("messages-kto", {"messages": items, "kto_tag": number}, (*ASKED, "label"), _liked),
        Shape("messages-pairs", {"messages": items, "rejected_messages": items}, PAIR, _beside),
        Shape("messages-response", {"messages": items, "rejected_response": text}, PAIR, _beside),
        Shape("prompt-and-conversations", {"prompt": text, "chosen": items, "rejected": items}, COMPARED, _whole),
        Shape("prompt-and-messages", {"prompt": text, "messages": items}, ("prompt",), lambda r: {"prompt": None},
              ("completion", "chosen")),
        Shape("hh", {"chosen": dialogue, "rejected": dialogue}, COMPARED, _human_assistant, ("prompt",)),
        Shape("openai-pairs", {"input": mapping, "preferred_output": items, "non_preferred_output": items}, COMPARED,
              _preferred),
        Shape("ultrafeedback", {"instruction": text, "completions": answers}, COMPARED, _rated),
        Shape("nectar", {"prompt": text, "answers": answers}, PAIR, _ranked),
        Shape("nemo", {"context": lambda value: text(value) or items(value), "completions": answers}, COMPARED, _completions),
        Shape("helpsteer", {"context": items, "response1": text, "response2": text, "overall_preference": number}, COMPARED,
              _two("response1", "response2", "overall_preference", 0, "context")),
        Shape("shp", {"history": text, "human_ref_A": text, "human_ref_B": text, "labels": number}, COMPARED,
              _two("human_ref_A", "human_ref_B", "labels", 0.5, "history", less=True)),
        Shape("pku-better", {"prompt": text, "response_0": text, "response_1": text, "better_response_id": number}, PAIR,
              _two("response_0", "response_1", "better_response_id", 0.5, "prompt")),
        Shape("pku-safer", {"prompt": text, "response_0": text, "response_1": text, "safer_response_id": number}, PAIR,
              _two("response_0", "response_1", "safer_response_id", 0.5, "prompt")),
        Shape("hh-messages", {"chosen": dialogue, "rejected": dialogue}, COMPARED, _human_assistant_messages, ("prompt",), True),
        Shape("arena", {"conversation_a": items, "conversation_b": items, "winner": text}, PAIR, _fought),
    )
}  # fmt: skip
