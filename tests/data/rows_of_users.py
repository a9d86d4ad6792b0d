"""Rows in the shapes that users have, each with the fields that Hookline must read from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["SHAPES", "Shape"]

USER = {"role": "user", "content": "Open the file."}
DONE = {"role": "assistant", "content": "It is open."}
LOST = {"role": "assistant", "content": "No."}
SYSTEM = {"role": "system", "content": "Be brief."}
HH = "\n\nHuman: Open the file.\n\nAssistant: Which?\n\nHuman: The list.\n\nAssistant:"


@dataclass(frozen=True)
class Shape:
    """One shape of rows."""

    use: str
    """What the rows are for: `answers`, `preferences`, `labels`, `prompts`."""
    row: dict[str, Any]
    fields: dict[str, Any]
    """What Hookline reads from the row."""
    named: str = ""
    """The shape that the user must name; empty: it is recognised."""
    nested: bool = False
    """Whether columns hold lists or objects."""


def _case(use: str, row: dict[str, Any], named: str = "", **fields: Any) -> Shape:
    nested = any(isinstance(value, list | dict) for value in row.values())
    return Shape(use, row, fields or {key: row[key] for key in ("prompt", "completion", "chosen", "rejected") if key in row}, named, nested)


ASK, SAID, OTHER = "Open the file.", "It is open.", "No."
PAIR = {"chosen": SAID, "rejected": OTHER}
SHAPES: dict[str, Shape] = {
    "trl prompt-completion": _case("answers", {"prompt": ASK, "completion": SAID}),
    "trl conversational prompt-completion": _case("answers", {"prompt": [USER], "completion": [DONE]}),
    "messages": _case("answers", {"messages": [SYSTEM, USER, DONE], "source": "x"}, messages=[SYSTEM, USER, DONE]),
    "sharegpt": _case("answers", {"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": SAID}]},
                      conversations=[{"from": "human", "value": ASK}, {"from": "gpt", "value": SAID}]),
    "alpaca": _case("answers", {"instruction": "Open it.", "input": "the file", "output": SAID},
                    prompt="Open it.\nthe file", completion=SAID),
    "alpaca with a system text": _case("answers", {"instruction": ASK, "input": "", "output": SAID, "system": "Be brief."},
                                       prompt=[SYSTEM, USER], completion=SAID),
    "question-answer": _case("prompts", {"question": ASK, "answer": SAID}, prompt=ASK, completion=SAID),
    "problem-solution": _case("answers", {"problem": ASK, "solution": SAID}, prompt=ASK, completion=SAID),
    "query-response": _case("answers", {"query": ASK, "response": SAID, "history": [["Hello.", "Yes?"]]},
                            prompt=[{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}, USER],
                            completion=SAID),
    "openrlhf input-output": _case("answers", {"input": ASK, "output": SAID}, prompt=ASK, completion=SAID),
    "helpsteer2": _case("answers", {"prompt": ASK, "response": SAID, "helpfulness": 4}, prompt=ASK, completion=SAID),
    "trl preferences": _case("preferences", {"prompt": ASK, **PAIR}),
    "trl conversational preferences": _case("preferences", {"prompt": [USER], "chosen": [DONE], "rejected": [LOST]}),
    "trl implicit prompt": _case("preferences", {"chosen": [USER, DONE], "rejected": [USER, LOST]}),
    "ultrafeedback binarized": _case("preferences", {"prompt": ASK, "chosen": [USER, DONE], "rejected": [USER, LOST],
                                                     "messages": [USER, DONE], "score_chosen": 8.0},
                                     prompt=None, chosen=[USER, DONE], rejected=[USER, LOST]),
    "hh": _case("preferences", {"chosen": HH + " It is open.", "rejected": HH + " No."},
                prompt=HH, chosen=" It is open.", rejected=" No."),
    "hh as messages": _case("preferences", {"chosen": HH + " It is open.", "rejected": HH + " No."}, "hh-messages",
                            prompt=[USER, {"role": "assistant", "content": "Which?"}, {"role": "user", "content": "The list."}],
                            chosen=[DONE], rejected=[LOST]),
    "alpaca pairs": _case("preferences", {"instruction": ASK, "input": "", **PAIR}, prompt=ASK, **PAIR),
    "sharegpt pairs": _case("preferences", {"conversations": [{"from": "human", "value": ASK}],
                                            "chosen": {"from": "gpt", "value": SAID},
                                            "rejected": {"from": "gpt", "value": OTHER}},
                            prompt=[{"from": "human", "value": ASK}], chosen=[{"from": "gpt", "value": SAID}],
                            rejected=[{"from": "gpt", "value": OTHER}]),
    "openai pairs": _case("preferences", {"input": {"messages": [USER], "tools": []}, "preferred_output": [DONE],
                                          "non_preferred_output": [LOST]}, prompt=[USER], chosen=[DONE], rejected=[LOST]),
    "ms-swift pairs": _case("preferences", {"messages": [USER, DONE], "rejected_response": OTHER},
                            chosen=[USER, DONE], rejected=[USER, LOST]),
    "ultrafeedback": _case("preferences", {"instruction": ASK, "completions": [
        {"response": "Hm.", "annotations": {"honesty": {"Rating": "3"}, "helpfulness": {"Rating": "2"}}},
        {"response": SAID, "annotations": {"honesty": {"Rating": "5"}, "helpfulness": {"Rating": "4"}}},
        {"response": OTHER, "annotations": {"honesty": {"Rating": "1"}, "helpfulness": {"Rating": "1"}}}]}, prompt=ASK, **PAIR),
    "nectar": _case("preferences", {"prompt": ASK, "answers": [{"answer": OTHER, "rank": 3}, {"answer": "Hm.", "rank": 2},
                                                               {"answer": SAID, "rank": 1}]}, prompt=ASK, **PAIR),
    "helpsteer3": _case("preferences", {"context": [USER], "response1": SAID, "response2": OTHER, "overall_preference": -2},
                        prompt=[USER], **PAIR),
    "shp": _case("preferences", {"history": ASK, "human_ref_A": OTHER, "human_ref_B": SAID, "labels": 0}, prompt=ASK, **PAIR),
    "pku": _case("preferences", {"prompt": ASK, "response_0": OTHER, "response_1": SAID, "better_response_id": 1}, prompt=ASK, **PAIR),
    "arena": _case("preferences", {"conversation_a": [USER, LOST], "conversation_b": [USER, DONE], "winner": "model_b"},
                   chosen=[USER, DONE], rejected=[USER, LOST]),
    "kto": _case("labels", {"prompt": ASK, "completion": SAID, "label": True}, prompt=ASK, completion=SAID, label=True),
    "llama-factory kto": _case("labels", {"conversations": [USER, DONE], "kto_tag": False},
                               prompt=[USER], completion=[DONE], label=False),
    "trl prompts with an answer": _case("prompts", {"prompt": [USER], "answer": "42"}, prompt=[USER]),
    "verl": _case("prompts", {"data_source": "gsm8k", "prompt": [USER], "ability": "math",
                              "reward_model": {"style": "rule", "ground_truth": "42"}, "extra_info": {"index": 3}}, prompt=[USER]),
    "plain prompts": _case("prompts", {"prompt": ASK, "keywords": "open"}),
}  # fmt: skip
