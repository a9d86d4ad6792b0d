"""Two answers and which is better, in columns of their own: SHP, PKU-SafeRLHF, RLHF-V, HH-RLHF and RewardBench."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from hookline import Candidate, Comparison, Correction, Event, EventFormat, Ranking, Rating, Record
from hookline_plugins.formats.naming import rest

__all__ = ["HH", "RLHFV", "SHP", "PKUSafeRLHF", "RewardBench", "RewardBench2"]

NOBODY = "unknown"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


class Choice(EventFormat):
    """One comparison of two texts in a row."""

    holds = frozenset({"comparison"})
    answers: ClassVar[tuple[str, str]]
    """The columns of the answers."""

    @abstractmethod
    def row(self, event: Event, prompt: str, texts: Mapping[str, str], better: int) -> Record:
        """The row in which the answer at a place is better."""

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        assert isinstance(event.answer, Comparison)
        if not isinstance(event.answer.better, int):
            raise ValueError(f"one of two answers is better in this format, and this is '{event.answer.better}'")
        yield {**event.record, **self.row(event, _text(event), _texts(event, self.answers), event.answer.better)}


class SHP(Choice):
    """Stanford's preferences of Reddit: `labels` is 1 where the first answer has the higher score. Scores stay in `record`."""

    columns = {"history": str, "human_ref_A": str, "human_ref_B": str, "labels": int}
    answers = ("human_ref_A", "human_ref_B")

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        if row["labels"] not in (0, 1):
            raise ValueError(f"'labels' is {row['labels']}, not 0 or 1")
        yield {
            "prompt": row["history"],
            "candidates": [Candidate.of(row[name]) for name in self.answers],
            "answer": {"kind": "comparison", "better": 1 - row["labels"]},
            "annotator": "reddit",
            "record": rest(row, *self.columns),
        }

    def row(self, event: Event, prompt: str, texts: Mapping[str, str], better: int) -> Record:
        return {"history": prompt, **texts, "labels": 1 - better}


class PKUSafeRLHF(EventFormat):
    """PKU-SafeRLHF: which answer is `better`, which is `safer`, and for each whether it is safe, as events of their own.

    `filter: {extra.question: better}` keeps one of them.
    """

    columns = {"prompt": str, "response_0": str, "response_1": str}
    holds = frozenset({"comparison", "rating"})
    questions = {"better": "better_response_id", "safer": "safer_response_id"}

    def fits(self, row: Record) -> bool:
        return super().fits(row) and any(type(row.get(name)) is int for name in self.questions.values())

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        flags = [name for name in _safe() if isinstance(row.get(name), bool)]
        asked = {question: name for question, name in self.questions.items() if row.get(name) is not None}
        item = {
            "prompt": row["prompt"],
            "candidates": [Candidate.of(row[name]) for name in ("response_0", "response_1")],
            "annotator": NOBODY,
            "record": rest(row, *self.columns, *flags, *asked.values()),
        }
        for question, name in asked.items():
            if row[name] not in (0, 1):
                raise ValueError(f"'{name}' is {row[name]}, not 0 or 1")
            yield {**item, "answer": {"kind": "comparison", "better": row[name]}, "extra": {"question": question}}
        for name in flags:
            answer = {"kind": "rating", "of": _safe().index(name), "marks": {"safe": row[name]}, "low": 0, "high": 1}
            yield {**item, "answer": {**answer, "marks": {"safe": int(row[name])}}, "extra": {"question": "safe"}}

    def key(self, event: Event) -> Any:
        return event.item

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        texts = _texts(events[0], ("response_0", "response_1"))
        made: dict[str, Any] = {**events[0].record, "prompt": _text(events[0]), **texts}
        for event in events:
            if isinstance(event.answer, Rating):
                if event.answer.marks.keys() != {"safe"} or event.answer.marks["safe"] not in (0, 1):
                    raise ValueError("a rating is 0 or 1 on the axis 'safe'")
                made[_safe()[event.answer.of]] = bool(event.answer.marks["safe"])
            else:
                assert isinstance(event.answer, Comparison)
                if not isinstance(event.answer.better, int):
                    raise ValueError(
                        f"one of two answers is better in this format, and this is '{event.answer.better}'"
                    )
                made[self.questions[event.extra.get("question", "better")]] = event.answer.better
        if not any(name in made for name in self.questions.values()):
            raise ValueError("a row says which answer is better, and no event does")
        yield made


def _safe() -> tuple[str, str]:
    return "is_response_0_safe", "is_response_1_safe"


class RLHFV(EventFormat):
    """RLHF-V: a question about an image, and an answer that a person corrected; `text` is JSON in a text."""

    columns = {"text": str}
    holds = frozenset({"correction"})

    def fits(self, row: Record) -> bool:
        return super().fits(row) and "image" in row and {"question", "chosen", "rejected"} <= _inner(row["text"]).keys()

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        inner = _inner(rows[0]["text"])
        yield {
            "prompt": inner["question"],
            "candidates": [Candidate.of(inner["rejected"])],
            "answer": {"kind": "correction", "text": inner["chosen"]},
            "annotator": NOBODY,
            "record": rest(rows[0], "text"),
            "extra": rest(inner, "question", "chosen", "rejected"),
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        assert isinstance(event.answer, Correction)
        said = {
            "question": _text(event),
            "chosen": event.answer.text,
            "rejected": event.candidates[event.answer.of].text,
        }
        text = json.dumps({**said, **event.extra}, ensure_ascii=False)
        yield {"image": None, **event.record, "text": text}


def _inner(text: str) -> dict[str, Any]:
    """The object that a text is in JSON; empty for any other text."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class HH(EventFormat):
    """HH-RLHF: two dialogues as text, which are equal up to an `Assistant:`; what follows the last one before which they are
    equal is compared. Dialogues that differ from the beginning are compared whole."""

    columns = {"chosen": str, "rejected": str}
    holds = frozenset({"comparison"})
    exempt = {"writes-what-it-reads": "dialogues have a space before each answer, which stays when they are read"}

    def fits(self, row: Record) -> bool:
        return (
            super().fits(row)
            and "prompt" not in row
            and all(row[name].lstrip().startswith("Human:") for name in self.columns)
        )

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        chosen, rejected = row["chosen"], row["rejected"]
        ends = [at.end() for at in re.finditer(ASSISTANT, chosen) if rejected[: at.end()] == chosen[: at.end()]]
        end = ends[-1] if ends else 0
        yield {
            "prompt": chosen[:end],
            "candidates": [Candidate.of(chosen[end:]), Candidate.of(rejected[end:])],
            "answer": {"kind": "comparison", "better": 0},
            "annotator": NOBODY,
            "record": rest(row, *self.columns),
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        assert isinstance(event.answer, Comparison)
        if not isinstance(event.answer.better, int) or len(event.candidates) != 2:
            raise ValueError(f"one of two dialogues is better in this format, and this is '{event.answer.better}'")
        said = [one.text for one in event.candidates]
        if any(one.messages for one in event.candidates):
            raise ValueError("an answer is several messages, and the format has one text")
        if event.source != self.instance:
            said = [f" {text}" for text in said]
        prompt = event.prompt if event.source == self.instance else _dialogue(event)
        dialogues = [f"{prompt}{text}" for text in said]
        yield {**event.record, "chosen": dialogues[event.answer.better], "rejected": dialogues[1 - event.answer.better]}


def _dialogue(event: Event) -> str:
    """A prompt as a dialogue that ends where the assistant speaks."""
    if isinstance(event.prompt, str):
        return f"{HUMAN} {event.prompt}{ASSISTANT}"
    names = {"user": HUMAN, "assistant": ASSISTANT}
    strange = next((one.get("role") for one in event.prompt if one.get("role") not in names), None)
    if strange is not None:
        raise ValueError(f"a message is of '{strange}', and dialogues are of Human and Assistant")
    return "".join(f"{names[one['role']]} {one['content']}" for one in event.prompt) + ASSISTANT


class RewardBench(Choice):
    """RewardBench: `chosen` and `rejected` with the models that wrote them, and the subset that decides the section."""

    columns = {"prompt": str, "chosen": str, "rejected": str, "chosen_model": str, "rejected_model": str, "subset": str}
    answers = ("chosen", "rejected")

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        yield {
            "prompt": row["prompt"],
            "candidates": [Candidate.of(row[name], by=row[f"{name}_model"]) for name in self.answers],
            "answer": {"kind": "comparison", "better": 0},
            "annotator": NOBODY,
            "record": rest(row, "prompt", *self.answers, "chosen_model", "rejected_model"),
        }

    def row(self, event: Event, prompt: str, texts: Mapping[str, str], better: int) -> Record:
        models = [one.by.name if one.by else "unknown" for one in event.candidates]
        said = [*texts.values()]
        return {
            "prompt": prompt,
            "chosen": said[better],
            "chosen_model": models[better],
            "rejected": said[1 - better],
            "rejected_model": models[1 - better],
            "subset": event.record.get("subset", "unknown"),
        }


class RewardBench2(EventFormat):
    """RewardBench 2: right answers above wrong ones; within each, answers are as good as one another."""

    columns = {"prompt": str, "chosen": list, "rejected": list, "num_correct": int, "total_completions": int}
    holds = frozenset({"ranking"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        said = [*row["chosen"], *row["rejected"]]
        if len(row["chosen"]) != row["num_correct"] or len(said) != row["total_completions"]:
            raise ValueError(
                f"it has {len(row['chosen'])} right of {len(said)} answers, and its columns say other numbers"
            )
        right = len(row["chosen"])
        groups = [list(range(right)), list(range(right, len(said)))]
        yield {
            "prompt": row["prompt"],
            "candidates": [Candidate.of(text) for text in said],
            "answer": {"kind": "ranking", "order": [group for group in groups if group]},
            "annotator": NOBODY,
            "record": rest(row, *self.columns),
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        assert isinstance(event.answer, Ranking)
        if len(event.answer.order) != 2 or sum(map(len, event.answer.order)) != len(event.candidates):
            raise ValueError(f"answers are right or wrong, and this ranks {len(event.answer.order)} places")
        chosen, rejected = ([event.candidates[i].text for i in group] for group in event.answer.order)
        counts = {"num_correct": len(chosen), "total_completions": len(event.candidates)}
        yield {**event.record, "prompt": _text(event), "chosen": chosen, "rejected": rejected, **counts}


def _text(event: Event) -> str:
    if not isinstance(event.prompt, str):
        raise ValueError("its prompt is messages, and the format has text")
    return event.prompt


def _texts(event: Event, columns: Sequence[str]) -> dict[str, str]:
    if len(event.candidates) != len(columns):
        raise ValueError(f"a row has {len(columns)} answers, and there are {len(event.candidates)}")
    return {name: one.text for name, one in zip(columns, event.candidates)}
