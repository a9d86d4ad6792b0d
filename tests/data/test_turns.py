"""What a conversation goes on with: the ids that a template adds behind what the policy answered, which stays as it was drawn."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_chat import ANSWER, GENERATES, NEXT, OPENS, THINKS, USER, having

from hookline.errors import DataError
from hookline.tokens.chat import _Whole
from hookline.tokens.encode import encode, encode_turn
from hookline.tokens.tokenizer import Tokenizer

CLOSE, RESULT = {"role": "user", "content": "close"}, {"role": "tool", "content": "a list"}
# thoughts before the last user's message are cut
STRIPS = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if loop.index0 > ns.last else m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}" + GENERATES
)


def grown(made: Tokenizer, previous: list[dict[str, Any]], sampled: str, message: Any, **how: Any) -> tuple[str, str]:
    """(the ids of an episode that went on, the conversation rendered whole), as text."""
    prompt = encode(made, {"prompt": previous[:-1]}, answer=None).prompt_ids
    ids = [*prompt, *made.chat.encode(sampled)[0]]  # type: ignore[union-attr]
    new = [{"role": "user", "content": message}] if isinstance(message, str) else message
    new = [new] if isinstance(new, dict) else new
    whole = encode(made, {"prompt": [*previous, *new]}, answer=None).prompt_ids
    return (
        made.decode([*ids, *encode_turn(made, previous, message, **how)], special=True),
        made.decode(whole, special=True),
    )


@pytest.mark.parametrize(
    ("folder", "end"),
    [("qwen2", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("gemma3", "<end_of_turn>"), ("phi3", "<|end|>")],
)
def test_a_new_turn_begins_behind_the_token_that_ended_the_answer(shelf: Path, folder: str, end: str) -> None:
    made = Tokenizer.load(shelf / folder)
    ids, whole = grown(made, [USER, ANSWER], f"read it{end}", CLOSE)
    assert ids == whole
    assert grown(made, [USER, ANSWER], f"read it{end}", "close")[0] == whole
    cut, _ = grown(made, [USER, ANSWER], "read it", CLOSE, ended=False)
    assert cut == whole


def test_what_was_sampled_stays_where_a_template_would_write_it_in_another_way(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "llama3")  # which trims
    ids, whole = grown(made, [USER, {**ANSWER, "content": " read it \n"}], " read it \n<|eot_id|>", CLOSE)
    assert ids == whole.replace("read it", " read it \n")


def test_several_results_of_tools_are_one_turn_and_the_row_says_what_the_template_gets(shelf: Path) -> None:
    template = (
        "{% if tools %}tools{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}{{ '!' if loud is defined and m.role == 'tool' }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}" + GENERATES
    )
    made = having(shelf, template)
    record = {"tools": [{"name": "f"}], "chat_template_kwargs": {"loud": 1}}
    turn = encode_turn(made, [USER, ANSWER], [RESULT, RESULT], record=record)
    assert (
        made.decode(turn, special=True)
        == "\n" + 2 * "<|im_start|>tool!\na list<|im_end|>\n" + "<|im_start|>assistant\n"
    )
    with pytest.raises(DataError, match="has no option 'lowd'; did you mean 'loud'"):
        encode_turn(made, [USER, ANSWER], RESULT, record={"chat_template_kwargs": {"lowd": 1}})


def test_the_next_speakers_token_is_the_one_that_was_sampled(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "phi3", {"chat_template": NEXT, "eos": ["<|endoftext|>", "<|user|>"]})
    ids, whole = grown(made, [USER, ANSWER], "read it<|user|>", CLOSE)
    assert ids == whole == "<|user|>open<|assistant|>read it<|user|>close<|assistant|>"
    assert grown(made, [USER, ANSWER], "read it", CLOSE, ended=False)[0] == whole


def test_thoughts_stay_within_a_turn_and_a_template_that_cuts_them_later_is_refused(shelf: Path) -> None:
    made = having(shelf, STRIPS)
    thinks = [USER, {**ANSWER, "content": "<think>a file</think>read it"}]
    ids, whole = grown(made, thinks, "<think>a file</think>read it<|im_end|>", RESULT)
    assert ids == whole
    for template, talk in ((STRIPS, thinks), (THINKS, [USER, ANSWER])):
        with pytest.raises(
            DataError, match=r"before message 3 in another way once it follows, from token \d+ on"
        ) as said:
            encode_turn(having(shelf, template), talk, CLOSE)
        assert "make a row of each turn" in str(said.value)
    with pytest.raises(DataError, match="before message 2 in another way"):
        encode_turn(having(shelf, OPENS), [USER, ANSWER], CLOSE)


def test_only_what_the_environment_says_can_follow_an_answer(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    with pytest.raises(DataError, match="does not end with an assistant's message"):
        encode_turn(made, [USER], CLOSE)
    with pytest.raises(DataError, match="a new message is an assistant's"):
        encode_turn(made, [USER, ANSWER], [CLOSE, ANSWER])
    with pytest.raises(DataError, match="message 1 has no text as `role`"):
        encode_turn(made, [USER, ANSWER], {"content": "a"})


@pytest.mark.parametrize("name", ["qwen2", "llama3", "gemma3", "phi3"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(st.text(" \n\tab'é中<|>.", max_size=12), min_size=2, max_size=6))
def test_the_ids_of_a_beginning_are_those_of_its_text(name: str, shelf: Path, said: list[str]) -> None:
    chat = _loaded(shelf / name).chat
    assert chat is not None
    turns = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]
    text, _ = chat.render(turns, "row")
    whole = _Whole(text, *chat.encode(text))
    for end in range(1, len(turns) + 1):
        for start in (True, False):
            part = chat.render(turns[:end], "row", start=start)[0]
            assert list(chat._beginning(part, whole)) == chat.encode(part)[0]


@lru_cache(maxsize=4)
def _loaded(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)
