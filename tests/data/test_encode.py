"""A record becomes tokens in one place, and rows become a batch in one place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers.models import WordLevel

from hookline import Behaviour, DataError, Encoded, Rollout, Sampling, Tokenizer
from hookline.tokens.encode import encode, encode_turn

WORDS = Tokenizer.words(["open the file and close the list again"], most=100)


class Ctx:
    """As much of a context as `Rollout.build` needs."""

    def __init__(self, handed_out: int = 100) -> None:
        self.tokenizer = WORDS
        self.samples = handed_out

    def sample_ids(self, n: int) -> torch.Tensor:
        self.samples += n
        return torch.arange(self.samples - n, self.samples)


def row(prompt: int, answer: int, **more: Any) -> Encoded:
    """A row of so many prompt and answer tokens."""
    return Encoded(prompt_ids=[2] * prompt, answer_ids=list(range(3, 3 + answer)), **more)


# -- encode


def test_a_record_is_prompt_and_answer_as_the_tokenizer_writes_them() -> None:
    record = {"prompt": "open the file", "completion": "close", "keywords": ["a"]}
    found = encode(WORDS, record)
    assert found.prompt_ids == WORDS.prompt("open the file")
    assert found.answer_ids == WORDS.answer("close")
    assert found.learn is None
    assert found.record is record
    assert len(found) == len(found.prompt_ids) + len(found.answer_ids)


def test_the_answer_is_in_the_field_that_is_named_or_still_to_be_drawn() -> None:
    record = {"prompt": "open", "chosen": "the file", "rejected": "list"}
    assert encode(WORDS, record, answer="rejected").answer_ids == WORDS.answer("list")
    assert encode(WORDS, {"prompt": "open"}, answer=None).answer_ids == []


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "a.jsonl row 3: 'prompt' is missing → the row has: nothing"),
        ({"completion": "x"}, "a.jsonl row 3: 'prompt' is missing → the row has: completion"),
        ({"prompt": None}, "'prompt' is null"),
        ({"prompt": "open"}, "'completion' is missing"),
        ({"prompt": "open", "completion": 3}, "'completion' is int, not text"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "it is a conversation, but the model's tokenizer has no chat template"),
        ({"prompt": "open", "completion": "x", "images": ["a.png"]}, "'images' cannot be encoded"),
        ({"prompt": "open", "completion": "open", "tools": [{"name": "f"}]}, "'tools' cannot be encoded"),
    ],
)
def test_a_record_that_cannot_be_encoded_is_named_with_its_row_and_field(record: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as said:
        encode(WORDS, record, where="a.jsonl row 3")
    assert words in str(said.value)


def test_a_record_with_an_empty_list_of_tools_is_plain_text() -> None:
    assert encode(WORDS, {"prompt": "open", "completion": "the", "tools": []}).answer_ids


def test_a_record_is_refused_from_one_token_too_many_on() -> None:
    record = {"prompt": "open the file", "completion": "close"}
    size = len(encode(WORDS, record))
    assert len(encode(WORDS, record, longest=size)) == size
    with pytest.raises(DataError, match=f"prompt and answer have {size} tokens, there is room for {size - 1}"):
        encode(WORDS, record, longest=size - 1)
    prompt = len(encode(WORDS, record, answer=None))
    encode(WORDS, record, answer=None, longest=prompt + 4, new_tokens=4)
    with pytest.raises(DataError, match=f"prompt has {prompt} tokens, with 4 new ones there is room for {prompt - 1}"):
        encode(WORDS, record, answer=None, longest=prompt + 3, new_tokens=4)


def test_a_turn_of_plain_text_adds_its_own_ids_and_messages_need_a_template() -> None:
    assert encode_turn(WORDS, (), "close the list") == WORDS.encode("close the list")
    assert encode_turn(WORDS, (), "") == []
    for previous, message in (([{"role": "user", "content": "open"}], "close"), ((), {"role": "user", "content": "open"})):
        with pytest.raises(DataError, match="the model's tokenizer has no chat template"):
            encode_turn(WORDS, previous, message)


# -- build


def test_rows_are_padded_and_each_is_its_own_group_and_episode_unless_said_otherwise() -> None:
    built = Rollout.build(Ctx(), [row(1, 3), row(2, 1)], source="pairs.jsonl")
    assert built.prompt_ids_BP.tolist() == [[2, 0], [2, 2]]
    assert built.token_ids_BT.tolist() == [[3, 4, 5], [3, 0, 0]]
    assert built.mask_BT.tolist() == [[True, True, True], [True, False, False]]
    assert built.sample_B.tolist() == built.group_B.tolist() == built.episode_B.tolist() == [100, 101]
    assert (built.finish_reason, built.source) == (("recorded",) * 2, ("pairs.jsonl",) * 2)
    assert built.behaviour is None


def test_groups_and_episodes_become_unique_within_the_run() -> None:
    ctx = Ctx()
    rows = [row(1, 1)] * 4
    first = Rollout.build(ctx, rows, source="x", group=[0, 0, 2, 2], episode=[0, 0, 2, 3])
    second = Rollout.build(ctx, rows, source="x", group=[0, 0, 2, 2], episode=[0, 0, 2, 3])
    assert first.group_B.tolist() == [100, 100, 102, 102]
    assert first.episode_B.tolist() == [100, 100, 102, 103]
    assert not set(first.group_B.tolist()) & set(second.group_B.tolist())
    assert not set(first.episode_B.tolist()) & set(second.episode_B.tolist())


def test_what_is_not_learned_is_a_hole_in_the_mask() -> None:
    built = Rollout.build(Ctx(), [row(1, 3, learn=[True, False, True]), row(1, 4)], source="x")
    assert built.mask_BT.tolist() == [[True, False, True, False], [True] * 4]
    assert built.length_B.tolist() == [3, 4]
    with pytest.raises(ValueError, match="row 1: 1 values of learn for 2 tokens"):
        Rollout.build(Ctx(), [row(1, 3), row(1, 2, learn=[True])], source="x")


def test_columns_of_rows_are_padded_by_their_names_and_may_have_any_further_dimensions() -> None:
    def one(prompt: int, answer: int) -> Encoded:
        columns = {
            "paid_BT": torch.ones(answer),
            "place_BP": torch.arange(prompt),
            "pixel_values_B": torch.full((2, 3, 3), float(answer)),
        }
        return row(prompt, answer, columns=columns)

    built = Rollout.build(Ctx(), [one(1, 3), one(2, 1)], source="x", columns={"recorded_B": torch.ones(2)})
    assert built.extra["paid_BT"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert built.extra["place_BP"].tolist() == [[0, 0], [0, 1]]
    assert built.extra["pixel_values_B"].shape == (2, 2, 3, 3)
    short = built.rows([1])
    assert short.extra["paid_BT"].tolist() == [[1]]
    assert short.extra["pixel_values_B"].shape == (1, 2, 3, 3)
    with pytest.raises(ValueError, match="row 1 has no column 'paid_BT'"):
        Rollout.build(Ctx(), [one(1, 1), row(1, 1)], source="x")


def test_completions_bring_answers_behaviour_and_reasons_to_the_prompts() -> None:
    ctx = Ctx()
    sample_B = ctx.sample_ids(2)
    behaviour = Behaviour(
        logprobs_BT=torch.zeros(2, 2), version_BT=torch.zeros(2, 2, dtype=torch.long), sampling=Sampling()
    )
    drawn = SimpleNamespace(
        token_ids_BT=torch.tensor([[5, 6], [7, 0]]),
        length_B=torch.tensor([2, 1]),
        finish_reason=("length", "stop"),
        behaviour=behaviour,
    )
    rows = [row(2, 0, record={"prompt": "a"}), row(1, 0, record={"prompt": "b"})]
    built = Rollout.build(ctx, rows, drawn, source=["policy", "greedy"], sample_B=sample_B, group=[0, 0])
    assert built.sample_B is sample_B
    assert ctx.samples == 102  # none handed out beside those that were drawn by
    assert built.mask_BT.tolist() == [[True, True], [True, False]]
    assert built.finish_reason == ("length", "stop")
    assert built.behaviour is behaviour
    assert [record["prompt"] for record in built.records] == ["a", "b"]


def test_no_rows_are_a_batch_too() -> None:
    built = Rollout.build(Ctx(), [], source="x", group=[], episode=[], columns={"recorded_B": torch.zeros(0)})
    assert len(built) == len(built.rows([])) == 0
    assert built.prompt_ids_BP.shape[1] >= 1


def test_a_vocabulary_reaches_to_the_largest_id_where_ids_have_gaps() -> None:
    words = {"<|pad|>": 0, "<|end|>": 1, "open": 5, "close": 9}
    tokenizer = Tokenizer(tokenizers.Tokenizer(WordLevel(words, unk_token="<|pad|>")))
    assert tokenizer.vocabulary == 10
    assert tokenizer.decode(tokenizer.encode("close")) == "close"
