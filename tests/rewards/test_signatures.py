"""Functions written for other frameworks are called as they are there; every value is computed by hand."""

from __future__ import annotations

import pytest
from asking import Asked, ask, function

from hookline import DataError, ExperimentError

SUMS = [({"prompt": "add 1 2", "answer": "3"}, "3"), ({"prompt": "add 2 2", "answer": "4"}, "it is 5")]


def test_trl_text() -> None:
    assert ask("trl_text.py", "accuracy", [*SUMS, ({"prompt": "what", "answer": None}, "3")]).values == [1.0, 0.0, None]
    # ids with the ending token: 2 and 4
    assert ask("trl_text.py", "long_enough", SUMS).values == [0.2, 0.4]


def test_trl_gets_what_trl_passes() -> None:
    rows = [({**record, "level": level}, said) for level, (record, said) in zip((1, 4), SUMS)]
    found = ask("trl_text.py", "kept", rows, step=3)
    assert found.values == [3 + 2, 3 + 4]
    assert found.figures == {"function/kept/mean_level": 2.5}


def test_trl_conversations_and_async() -> None:
    def chat(text: str) -> dict[str, object]:
        return {"prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": text}]}

    rows = [(chat("a cat"), "please cat"), (chat("a dog"), "no dog"), ({"messages": chat("an ox")["prompt"]}, "please no")]
    asked = Asked()
    assert ask("trl_chat.py", "polite", rows, asked=asked).values == [1.5, 0.5, 1.0]
    assert list(asked.journal) == [("function", 100, 3)]  # what came from a service is not asked for again


def test_verl() -> None:
    more = {"data_source": "sums", "extra_info": {"split": "train"}}
    rows = [
        ({"prompt": "x", "reward_model": {"style": "rule", "ground_truth": "3"}, **more}, "so 3"),
        ({"prompt": "x", "ground_truth": "4", **more}, "so 3"),
        ({"prompt": "x", "ground_truth": "4", **more, "data_source": "other"}, "so 4"),
    ]
    found = ask("verl_row.py", "compute_score", rows)
    assert found.values == [1.25, 0.0, -1.0]
    assert found.figures["function/compute_score/acc"] in (1.0, 0.0)
    assert "function/compute_score/pred" not in found.figures or found.figures["function/compute_score/pred"] == 3.0
    assert ask("verl_row.py", "compute_score", rows[:1], arguments={"bonus": 1}).values == [2.0]


def test_verl_batch() -> None:
    rows = [({"prompt": "x", "ground_truth": w, "data_source": "s", "extra_info": {}}, "so 3") for w in ("so 3", "4")]
    found = ask("verl_batch.py", "compute_score", rows)
    assert found.values == [1.0, 0.0]
    assert found.figures == {"function/compute_score/length": 4.0}


def test_openrlhf() -> None:
    rows = [({"prompt": "add 1 2", "label": "3"}, "it is 3"), ({"prompt": "add 1 3", "label": "4"}, "3")]
    found = ask("openrlhf.py", "reward_func", rows)
    assert found.values == [1.0, -1.0]
    assert found.figures.keys() == {"function/reward_func/scores", "function/reward_func/ended"}
    assert found.figures["function/reward_func/ended"] == 1.0  # queries have their special tokens
    assert ask("openrlhf.py", "older", rows).values == [3 + 4, 3 + 2]  # with the ending token; prompts of 3 words


def test_ms_swift() -> None:
    chat = {"prompt": [{"role": "user", "content": "add"}], "solution": "so 3"}
    assert ask("swift_orm.py", "Accuracy", [(chat, "so 3"), (chat, "4")]).values == [1.0, 0.0]
    named = [({"prompt": "x", "answer": "3"}, "3")]
    assert ask("swift_orm.py", "Accuracy", named, columns={"solution": "answer"}).values == [1.0]


def test_verifiers() -> None:
    assert ask("verifiers_row.py", "correct_answer", SUMS).values == [0.5, 0.0]
    rows = [({"prompt": "x", "answer": "?"}, "3"), ({"prompt": "x", "answer": "33"}, "a word")]
    asked = Asked()
    assert ask("verifiers_row.py", "judged", rows, asked=asked).values == [None, 4.0]
    asked.journal = {key: {"values": [9.0], "figures": {}, "missed": ""} for key in asked.journal}
    assert ask("verifiers_row.py", "judged", rows, asked=asked).values == [9.0, 9.0]  # a resumed run reads the journal


def test_open_instruct() -> None:
    rows = [({"prompt": "x", "ground_truth": "a b"}, "a b"), ({"prompt": "x", "ground_truth": "c"}, "a b")]
    assert ask("open_instruct.py", "verifier", rows).values == [3.0, 0.0]
    assert ask("open_instruct.py", "Verifier", rows).values == [3.0, 0.0]


def test_a_whole_record() -> None:
    assert ask("by_record.py", "share", [({"prompt": "x", "keywords": ["a", "b"]}, "a c")]).values == [0.5]


def test_every_style_is_recognised_by_its_words() -> None:
    styles = {
        ("trl_text.py", "accuracy"): "trl", ("trl_text.py", "long_enough"): "trl", ("trl_chat.py", "polite"): "trl",
        ("verl_row.py", "compute_score"): "verl", ("verl_batch.py", "compute_score"): "verl batch",
        ("openrlhf.py", "reward_func"): "openrlhf", ("swift_orm.py", "Accuracy"): "swift",
        ("verifiers_row.py", "judged"): "row", ("open_instruct.py", "verifier"): "row", ("by_record.py", "share"): "row",
    }  # fmt: skip
    assert {key: function(*key).signature.style for key in styles} == styles
    assert function("swift_orm.py", "Accuracy", signature="trl").signature.style == "trl"


def test_process_gives_the_same(tmp_path: object) -> None:
    assert ask("trl_text.py", "accuracy", SUMS, process=True).values == [1.0, 0.0]
    more = {"level": 2}
    found = ask("trl_text.py", "kept", [({**record, **more}, said) for record, said in SUMS], process=True, step=1)
    assert found.values == [3.0, 5.0]
    assert found.figures == {"function/kept/mean_level": 2.0, "function/kept/missed": 0}


def test_a_parameter_that_no_column_has() -> None:
    made = function("trl_text.py", "accuracy")
    with pytest.raises(DataError) as err:
        made.check_row({"prompt": "x", "anser": "3"}, "rows.jsonl row 7")
    assert err.value.message == (
        "rows.jsonl row 7: there is no column 'answer', which is a parameter of trl_text.py:accuracy; the row has prompt, anser"
    )
    assert err.value.hint.startswith("columns: {answer: anser} gives another column")


def test_names_of_options_are_checked() -> None:
    with pytest.raises(ExperimentError, match="no parameter 'answr', which `columns` names; did you mean 'answer'"):
        function("verifiers_row.py", "correct_answer", columns={"answr": "a"})
