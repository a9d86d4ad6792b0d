"""Functions written for other frameworks are called as they are there; every value is computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import Asked, ask, function

from hookline import DataError, ExperimentError
from hookline_plugins.rewards.signatures import CALLED, STYLES

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
    assert ask("verl_row.py", "with_extras", [rows[0], (rows[1][0], "4")], arguments={"strict": True}).values == [
        0.0,
        1.0,
    ]


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
    assert ask("swift_orm.py", "Late", [(chat, "so 3"), (chat, "4")]).values == [4.0, 1.0]


def test_verifiers() -> None:
    assert ask("verifiers_row.py", "correct_answer", SUMS).values == [0.5, 0.0]
    rows = [({"prompt": "x", "answer": "?"}, "3"), ({"prompt": "x", "answer": "33"}, "a word")]
    asked = Asked()
    assert ask("verifiers_row.py", "judged", rows, asked=asked).values == [None, 4.0]
    asked.journal = {key: {"values": [9.0], "figures": {}, "missed": ""} for key in asked.journal}
    assert ask("verifiers_row.py", "judged", rows, asked=asked).values == [9.0, 9.0]  # a resumed run reads the journal


def test_verifiers_names() -> None:
    rows = [({"prompt": "add 1 2", "answer": "so 3", "level": 1}, "so 3"), ({"prompt": "add 2 2", "level": 2}, "5 5 5")]
    assert ask("verifiers_state.py", "exact", rows).values == [
        1.0,
        0.0,
    ]  # the plain parser; an answer that a row lacks is ""
    assert ask("verifiers_parser.py", "exact", [({"prompt": "x", "answer": "3"}, "so [3]"), *SUMS]).values == [
        0.75,
        0.25,
        0.25,
    ]
    priced = [(rows[0][0] | {"info": {"price": 10}}, "so 3"), rows[1]]
    assert ask("verifiers_state.py", "by_state", priced).values == [20.0, 3.0]
    chat = {"prompt": [{"role": "user", "content": "add"}], "answer": "so 3", "level": 1}
    for name, values in (("exact", [1.0, 0.0]), ("by_state", [2.0, 1.0])):
        assert ask("verifiers_state.py", name, [(chat, "so 3"), (chat, "4")]).values == values
    solved = [({key: value for key, value in chat.items() if key != "answer"} | {"solution": "so 3"}, "so 3")]
    assert ask("verifiers_state.py", "by_state", solved).values == [2.0]
    assert ask("verifiers_parser.py", "exact", solved, columns={"answer": "solution"}).values == [0.25]


def test_verifiers_groups() -> None:
    asked = Asked()
    assert ask("verifiers_state.py", "best_of_group", SUMS, asked=asked).values == [0.0, 1.0]
    assert list(asked.journal) == [("function", 100, 2)]  # one call for the batch
    chat = {"prompt": [{"role": "user", "content": "add"}], "answer": "3"}
    assert ask("verifiers_state.py", "best_of_group", [(chat, "a 3"), (chat, "3")]).values == [1.0, 0.0]


def test_inspect() -> None:
    rows = [
        ({"prompt": "add 1 2", "target": want, "near": "4"}, said)
        for want, said in (("3", "is 3"), (["2", "3"], "4"), ("3", "7"), ("3", "?"))
    ]
    assert ask("inspect_scorer.py", "includes", rows).values == [1.0, 0.5, 0.0, None]
    found = ask("inspect_scorer.py", "length", rows[:2])
    assert found.values == [2 / 1, 1 / 2]  # the texts of a target are joined
    assert found.figures == {"function/length/asked": 3.0}
    chat = ({"prompt": [{"role": "user", "content": "add"}], "answer": "ab"}, "a b c")
    assert ask("inspect_scorer.py", "length", [chat], columns={"target": "answer"}).values == [1.5]
    with pytest.raises(DataError, match=r"no column 'target', which is a parameter of inspect_scorer.py:length"):
        function("inspect_scorer.py", "length").check_row(chat[0], "row 1")


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
        ("verifiers_state.py", "exact"): "verifiers", ("verifiers_state.py", "by_state"): "verifiers",
        ("verifiers_state.py", "best_of_group"): "verifiers batch", ("inspect_scorer.py", "includes"): "inspect",
    }  # fmt: skip
    assert {key: function(*key).signature.style for key in styles} == styles
    assert function("swift_orm.py", "Accuracy", signature="trl").signature.style == "trl"
    assert {style.removesuffix(" batch") for style in CALLED} == set(STYLES)


def test_a_column_may_have_the_name_of_a_mark(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(
        "def f(completion, state): return len(state)\ndef g(completions, state): return [len(one) for one in state]\n"
    )
    rows = [({"prompt": "x", "state": "Ohio"}, "y")]
    assert ask(tmp_path / "f.py", "f", rows, signature="row").values == [4.0]
    assert ask(tmp_path / "f.py", "f", rows, columns={"state": "state"}).values == [4.0]
    assert ask(tmp_path / "f.py", "g", rows).values == [4.0]  # verifiers says `states` for a batch


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "Guess",
            r"'Guess' of .*trl_environment.py is an environment \(TRL\), whose `get_reward` belongs to an episode that it plays",
        ),
        ("AgentInstance", r"is an environment \(OpenRLHF or Gymnasium\), whose `step`"),
        (
            "of_a_trace",
            r"trl_environment.py:of_a_trace cannot be called here: verifiers 1.0 gives it a trace of its own engine \('trace'\)",
        ),
    ],
)
def test_what_cannot_be_called_is_refused_with_a_way_out(name: str, sentence: str) -> None:
    with pytest.raises(ExperimentError, match=sentence) as err:
        function("trl_environment.py", name)
    assert "def mine(completion, answer)" in err.value.hint


def test_process_gives_the_same(tmp_path: object) -> None:
    parsed = ask("verifiers_parser.py", "exact", [({"prompt": "x", "answer": "3"}, "so [3]")], process=True)
    assert parsed.values == [0.75]
    assert ask("verifiers_state.py", "exact", [({"prompt": "x", "answer": "3", "level": 1}, "3")], process=True).values == [1.0]
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
