"""How conversations become tokens: each behaviour of the templates that people bring, with a stand-in that has it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hookline.errors import DataError
from hookline.tokens.encode import encode
from hookline.tokens.tokenizer import Tokenizer
from shapes import SHAPES

USER, ANSWER = {"role": "user", "content": "open"}, {"role": "assistant", "content": "read it"}
TALK = [USER, ANSWER, {"role": "user", "content": "close"}, {"role": "assistant", "content": "write it"}]
GENERATES = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
# after the last user's message, thinking stays and an empty block is written; earlier it is cut
THINKS = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}" + GENERATES
)
# the answer to the prompt begins with a thought, and a whole conversation holds none
OPENS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# nothing ends a turn but the next speaker's token
NEXT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
# marks begin at the first token, which a library's mask reads as everything
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)
# the mark leaves out the token that ends the turn
SHORT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" + GENERATES
)
TOOLS = (
    "{% if tools %}tools: {{ tools | length }}\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments['path'] }}){% endfor %}<|im_end|>\n"
    "{% endfor %}{% if thinking is defined and thinking %}loud{% endif %}" + GENERATES
)


def having(shelf: Path, template: str, folder: str = "qwen2", **choices: Any) -> Tokenizer:
    return Tokenizer.load(shelf / folder, {"chat_template": template, **choices})


def seen(tokenizer: Tokenizer, record: dict[str, Any], **how: Any) -> str:
    """A record as the model sees it, with what is learned in [ ]."""
    row = encode(tokenizer, record, where="row 7", **how)
    text = tokenizer.decode(row.prompt_ids, special=True)
    own = False
    for token, learned in zip(row.answer_ids, row.learn or [True] * len(row.answer_ids)):
        text += ("[" if learned and not own else "]" if own and not learned else "") + tokenizer.decode(
            [token], special=True
        )
        own = learned
    return text + "]" * own


def test_a_default_system_prompt_is_the_templates_and_the_newline_behind_a_turn_is_not_learned(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    assert seen(made, {"messages": TALK}) == (
        "<|im_start|>system\nYou are a helper.<|im_end|>\n<|im_start|>user\nopen<|im_end|>\n<|im_start|>assistant\n[read it<|im_end|>]\n"
        "<|im_start|>user\nclose<|im_end|>\n<|im_start|>assistant\n[write it<|im_end|>]"
    )
    assert seen(made, {"messages": TALK}, learn="last").count("[") == 1
    assert "helper" not in seen(made, {"messages": [{"role": "system", "content": "Be short."}, *TALK]})


def test_a_prompt_is_what_the_model_answers_to(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    asked = encode(made, {"prompt": [USER]}, answer=None)
    assert made.decode(asked.prompt_ids, special=True).endswith("<|im_start|>assistant\n")
    assert encode(made, {"messages": TALK[:2]}, answer=None).prompt_ids == asked.prompt_ids
    for completion in ("read it", [ANSWER]):
        row = encode(made, {"prompt": [USER], "completion": completion})
        assert row.prompt_ids == asked.prompt_ids
        assert made.decode(row.answer_ids, special=True) == "read it<|im_end|>"


def test_only_the_answers_turns_are_learned_where_the_prompt_has_some(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    row = seen(made, {"prompt": TALK[:3], "completion": TALK[3:]})
    assert row.count("[") == 1
    assert row.endswith("[write it<|im_end|>]")


def test_comparisons_without_a_prompt_share_their_first_messages(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    record = {"chosen": TALK[:2], "rejected": [USER, {"role": "assistant", "content": "list"}]}
    chosen, rejected = (encode(made, record, answer=answer) for answer in ("chosen", "rejected"))
    assert chosen.prompt_ids == rejected.prompt_ids
    assert made.decode(rejected.answer_ids, special=True) == "list<|im_end|>"


@pytest.mark.parametrize("folder", ["llama3", "gemma3"])
def test_MT10_a_text_begins_once_where_template_and_tokenizer_both_begin_it(shelf: Path, folder: str) -> None:
    made = Tokenizer.load(shelf / folder)
    row = encode(made, {"messages": TALK})
    for ids in (row.prompt_ids + row.answer_ids, encode(made, {"prompt": "open"}, answer=None).prompt_ids):
        assert ids[0] == made.bos
        assert ids.count(ids[0]) == 1


def test_content_that_a_template_trims_is_learned_as_it_renders_it(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "llama3")
    record = {"messages": [USER, {"role": "assistant", "content": "  read it \n"}]}
    assert seen(made, record).endswith("\n\n[read it<|eot_id|>]")


def test_the_end_that_a_template_adds_after_everything_is_not_learned(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "phi3")
    assert seen(made, {"messages": TALK}).endswith("<|assistant|>\n[write it<|end|>]")


def test_a_template_that_refuses_a_conversation_is_quoted(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "gemma3")
    with pytest.raises(DataError, match=r"row 7: .*refuses the conversation: roles must alternate user/assistant"):
        seen(made, {"messages": [USER, USER, ANSWER]})
    assert "Be short.\n\nopen" in seen(made, {"messages": [{"role": "system", "content": "Be short."}, USER, ANSWER]})


def test_a_history_that_changes_is_refused_and_its_last_turn_is_not(shelf: Path) -> None:
    made = having(shelf, THINKS)
    with pytest.raises(
        DataError, match=r"row 7: the experiment's chat_template renders .* message 3 .* from token \d+ on"
    ):
        seen(made, {"messages": TALK})
    assert seen(made, {"messages": TALK}, learn="last").endswith(
        "assistant\n[<think>\n\n</think>\n\nwrite it<|im_end|>]"
    )


def test_a_prompt_that_is_no_beginning_of_the_conversation_is_refused(shelf: Path) -> None:
    with pytest.raises(DataError, match="cannot be told apart"):
        seen(having(shelf, OPENS), {"messages": TALK})


def test_the_next_speakers_token_ends_a_turn_where_nothing_else_does(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "phi3", {"chat_template": NEXT, "eos": ["<|endoftext|>", "<|user|>"]})
    assert seen(made, {"messages": TALK}) == "<|user|>open<|assistant|>[read it<|user|>]close<|assistant|>[write it]"


def test_marks_decide_also_where_they_begin_at_the_first_token(shelf: Path) -> None:
    made = having(shelf, MARKED)
    row = encode(made, {"messages": [USER, *TALK[1:]]})
    assert seen(made, {"messages": TALK}) == "open<|im_end|>\n[read it<|im_end|>]close<|im_end|>\n[write it<|im_end|>]"
    assert sum(row.learn or ()) < len(row.answer_ids)


def test_marks_without_the_end_of_a_turn_do_not_decide(shelf: Path) -> None:
    assert seen(having(shelf, SHORT), {"messages": TALK}).endswith("[write it<|im_end|>]")


def test_tools_calls_and_options_reach_the_template(shelf: Path) -> None:
    made = having(shelf, TOOLS)
    call = {"function": {"name": "read", "arguments": '{"path": "a.txt"}'}}
    talk = [USER, {"role": "assistant", "content": None, "tool_calls": [call], "name": None}]
    assert seen(made, {"messages": talk}).endswith("[read(a.txt)<|im_end|>]")
    assert "None" not in seen(made, {"messages": talk})
    assert "tools: 1" in seen(made, {"messages": talk, "tools": [{"type": "function", "function": {"name": "read"}}]})
    assert "tools" not in seen(made, {"messages": talk, "tools": []})
    prompt = encode(made, {"prompt": [USER], "chat_template_kwargs": {"thinking": True}}, answer=None)
    assert "loud" in made.decode(prompt.prompt_ids)
    with pytest.raises(DataError, match="has no option 'thinkng'; did you mean 'thinking'"):
        encode(made, {"prompt": [USER], "chat_template_kwargs": {"thinkng": True}}, answer=None, where="row 7")


def test_the_clock_stands_still_for_a_run(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "llama3")
    assert made.chat is not None
    made.chat.clock = datetime(2020, 2, 29, 23, 59)
    assert "Today is 29 Feb 2020." in seen(made, {"messages": TALK})


@pytest.mark.parametrize("asked", ["strftime_now('%d %b ' ~ '%Y')", "strftime_now(form)", "strftime_now(format='%-d %B %Y')"])
def test_a_template_may_ask_the_clock_in_any_way(asked: str, shelf: Path) -> None:
    made = having(shelf, "{% set form = '%d.%m.%Y' %}{{ " + asked + " }} " + MARKED)
    assert made.chat is not None
    made.chat.clock = datetime(2020, 2, 9)
    assert seen(made, {"messages": TALK}).startswith(("09 Feb 2020 ", "09.02.2020 ", "9 February 2020 "))


def test_a_folders_template_for_tools_is_used_where_a_row_has_some(shelf: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "named"
    shutil.copytree(shelf / "qwen2", folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("TOOLS {{ tools | length }} " + MARKED)
    made = Tokenizer.load(folder)
    assert seen(made, {"messages": TALK, "tools": [{"type": "function"}]}).startswith("TOOLS 1 open")
    assert seen(made, {"messages": TALK}).startswith("<|im_start|>system")
    kept = tmp_path / "kept"
    kept.mkdir()
    made.save(kept)
    assert seen(Tokenizer.load(kept), {"messages": TALK, "tools": [{"type": "function"}]}).startswith("TOOLS 1")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("tokenizer_config.json", '{"eos_token": "<|nope|>"}', "names the eos_token '<|nope|>', which tokenizer.json does not have"),
        ("generation_config.json", "{", "generation_config.json cannot be read"),
        ("generation_config.json", "[]", "generation_config.json does not hold an object"),
    ],
)
def test_files_of_a_folder_that_are_wrong_are_named(file: str, text: str, said: str, shelf: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "wrong"
    shutil.copytree(shelf / "qwen2", folder)
    (folder / file).write_text(text)
    with pytest.raises(DataError) as caught:
        Tokenizer.load(folder)
    assert said in str(caught.value)


def test_a_template_beside_tokenizer_json_alone_is_read_and_null_is_no_prompt(shelf: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(shelf / "qwen2" / name, folder)
    made = Tokenizer.load(folder)
    assert seen(made, {"messages": TALK, "prompt": None}) == seen(Tokenizer.load(shelf / "qwen2"), {"messages": TALK})


def test_share_gpts_names_are_read(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    turns = [{"from": "human", "value": "open"}, {"from": "gpt", "value": "read it"}]
    assert seen(made, {"conversations": turns}) == seen(made, {"messages": TALK[:2]})


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"messages": "open"}, "`messages` is not a conversation"),
        ({"messages": [["user", "open"]]}, "message 1 is not an object"),
        ({"messages": [{"content": "open"}]}, "message 1 has no text as `role`; it has: content"),
        ({"messages": [{"role": "user"}]}, "message 1 of 'user' has no `content`"),
        ({"messages": [{"role": "user", "content": 5}]}, "message 1: `content` is int, not text"),
        ({"messages": [USER]}, "no message of an assistant to learn from"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": 5}]}, "`tool_calls` is not a list of objects"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{"function": "open"}]}]}, "the function of a call is not"),
        ({"conversations": [{"from": ["x"], "value": "a"}]}, "message 1 has no text as `role`"),
        ({"messages": TALK, "chat_template_kwargs": [1]}, "`chat_template_kwargs` is not an object"),
        ({"messages": TALK, "tools": [{"type": "function"}]}, "has no option 'tools'"),
        ({"messages": [USER, {"role": "assistant", "content": "a<|im_end|>b"}]}, "message 2 holds '<|im_end|>'"),
        ({"prompt": [USER], "completion": 3}, "`completion` is not a conversation"),
        ({"prompt": [USER], "completion": [ANSWER], "images": ["a.png"]}, "'images' cannot be encoded"),
        ({"chosen": [USER], "rejected": [ANSWER]}, "do not begin with the same messages"),
    ],
)
def test_what_is_no_conversation_is_named(shelf: Path, record: dict[str, Any], said: str) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    with pytest.raises(DataError, match="row 7") as caught:
        encode(made, record, answer="chosen" if "chosen" in record else "completion", where="row 7")
    assert said in str(caught.value)


# -- what the folder says


def test_special_tokens_in_plain_text_are_text_and_in_chat_they_are_tokens(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    end = made.inner.token_to_id("<|im_end|>")
    assert end not in made.encode("a <|im_end|> b")
    assert made.decode(made.encode("a <|im_end|> b")) == "a <|im_end|> b"
    assert end in encode(made, {"prompt": [USER]}, answer=None).prompt_ids
    assert made.decode([end]) == ""
    assert made.decode([end], special=True) == "<|im_end|>"


def test_each_folder_begins_and_ends_texts_in_its_own_way(shelf: Path) -> None:
    for name in ("qwen2", "llama3", "gemma3", "phi3"):
        made, shape = Tokenizer.load(shelf / name), SHAPES[name]
        assert {made.inner.id_to_token(end) for end in made.ends} == {*shape.ends, shape.eos}
        assert made.inner.id_to_token(made.eos) == shape.eos
        assert bool(made.prefix) == shape.begins
        assert made.prompt("open")[: len(made.prefix)] == made.prefix
        assert made.prompt("open")[len(made.prefix) :] == made.encode("open")


def test_the_experiment_overrides_ends_padding_and_template_aloud(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2", {"eos": ["<|endoftext|>"], "pad": "<|im_start|>"})
    assert made.ends == (made.inner.token_to_id("<|endoftext|>"),)
    assert made.special["pad_token_id"] == made.inner.token_to_id("<|im_start|>")
    assert any("as the experiment says" in text for text in made.decided)
    with pytest.raises(
        DataError, match=r"tokenizer.eos: '<\|im_ende\|>' is not in the vocabulary; did you mean '<\|im_end\|>'"
    ):
        Tokenizer.load(shelf / "qwen2", {"eos": ["<|im_ende|>"]})


def test_a_template_that_ends_turns_with_a_token_nobody_names_lets_it_end_answers(shelf: Path, tmp_path: Path) -> None:
    """A base model with a chat template: its files name the end of a text alone, so that trained answers would never stop."""
    import json
    import shutil

    base = tmp_path / "base"
    shutil.copytree(shelf / "qwen2", base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    (base / "generation_config.json").write_text('{"eos_token_id": 0}')
    made = Tokenizer.load(base)
    assert [made.inner.id_to_token(end) for end in made.ends] == ["<|endoftext|>", "<|im_end|>"]
    assert any("ends a turn with it" in text for text in made.decided)
    out = tmp_path / "out"
    out.mkdir()
    made.export(out)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == list(made.ends)
    assert Tokenizer.load(out).ends == made.ends


def test_truncation_padding_and_dropout_that_a_file_stores_are_off(shelf: Path, tmp_path: Path) -> None:
    import json
    import shutil

    odd = tmp_path / "odd"
    shutil.copytree(shelf / "qwen2", odd)
    stored = json.loads((odd / "tokenizer.json").read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    stored["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
    }  # fmt: skip
    stored["model"]["dropout"] = 0.5
    (odd / "tokenizer.json").write_text(json.dumps(stored))
    made, plain = Tokenizer.load(odd), Tokenizer.load(shelf / "qwen2")
    assert made.encode("open the file and close it") == plain.encode("open the file and close it")
    assert seen(made, {"messages": TALK}) == seen(plain, {"messages": TALK})


def test_text_that_looks_like_a_token_is_divided_or_refused(tmp_path: Path) -> None:
    """A model of whole pieces has special tokens among its pieces, so the text itself becomes one."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    unigram = Inner(models.Unigram())
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    unigram.train_from_iterator(["a b c d say the end </ s> <"] * 9, trainer)
    unigram.save(str(tmp_path / "tokenizer.json"))
    made = Tokenizer.load(tmp_path)
    assert made.eos not in made.encode("a </s> b")
    assert made.encode_many(["a </s> b"]) == [made.encode("a </s> b")]
    words = Tokenizer.words(["a <|end|> b"], 100)
    with pytest.raises(DataError, match=r"the word '<\|end\|>' is a special token"):
        words.encode("a <|end|> b")


def test_turns_that_a_row_marks_are_not_learned_and_calls_that_nobody_writes_are_refused(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    ask = {"role": "user", "content": "open"}
    for mark in ({"weight": 0}, {"train": False}):
        turns = [ask, {"role": "assistant", "content": "No.", **mark}, ask, {"role": "assistant", "content": "Yes."}]
        row = encode(made, {"messages": turns})
        learned = [token for token, own in zip(row.answer_ids, row.learn or ()) if own]
        assert made.decode(learned) == "Yes."
    with pytest.raises(DataError, match="no message of an assistant to learn from; who speaks: user, bot"):
        encode(made, {"messages": [ask, {"role": "bot", "content": "Yes."}]})
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    plain = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}<|im_end|>\n{% endfor %}"
    plain += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    made.chat = replace(made.chat, text=plain)  # type: ignore[type-var]
    with pytest.raises(DataError, match="leaves out the `tool_calls` of message 2"):
        encode(made, {"messages": [ask, call]})


def test_options_of_any_name_are_the_templates_or_refused_by_a_sentence(shelf: Path) -> None:
    made = having(shelf, TOOLS)
    for name in ("start", "where", "messages", "learn", "since", "ended", 5):
        for answer in (None, "completion"):
            with pytest.raises(DataError, match=rf"row 7: the experiment's chat_template .*has no option '{name}'"):
                encode(made, {"messages": TALK, "chat_template_kwargs": {name: 1}}, where="row 7", answer=answer)
    reads = having(shelf, "{% if start %}<|im_start|>{% endif %}" + TOOLS)
    asked: dict[str, Any] = {"prompt": TALK[:1], "completion": TALK[1:2]}
    assert seen(reads, {**asked, "chat_template_kwargs": {"start": 1}}).startswith("<|im_start|><|im_start|>user")


def test_an_answer_of_messages_needs_no_prompt(shelf: Path) -> None:
    made = having(shelf, TOOLS)
    assert seen(made, {"completion": TALK[1:2]}) == "<|im_start|>assistant\n[read it<|im_end|>]"
    assert "tools: 1" in seen(made, {"completion": TALK[:2], "tools": [{"name": "ls"}]})


def test_a_turn_that_a_template_does_not_write_is_refused(shelf: Path) -> None:
    made = having(shelf, "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}{% endif %}{% endfor %}")
    with pytest.raises(DataError, match=r"row 7: the experiment's chat_template .*writes nothing for message 2"):
        encode(made, {"messages": TALK[:2]}, where="row 7")


def test_a_row_whose_turns_all_have_no_weight_is_named_as_such(shelf: Path) -> None:
    turns = [{**turn, "weight": 0} for turn in TALK]
    with pytest.raises(DataError, match="row 7 says of every turn of its assistant that it is not learned: `weight: 0`"):
        encode(having(shelf, TOOLS), {"messages": turns}, where="row 7")


def test_a_mark_that_cuts_a_token_does_not_decide(shelf: Path) -> None:
    cut = MARKED.replace("{% generation %}{{ m.content }}", "{{ m.content[:1] }}{% generation %}{{ m.content[1:] }}")
    made = having(shelf, cut)
    assert made.chat is not None
    text, marks = made.chat.render(TALK[:2], "row 7")
    assert len(marks) == 1
    assert made.chat._marked(*made.chat.encode(text), marks) is None, "`re` is one token"
    assert seen(made, {"messages": TALK[:2]}).endswith("[read it<|im_end|>]"), "found by rendering the turn"


def test_marks_of_a_long_conversation_are_found_in_time(shelf: Path) -> None:
    made, talk = having(shelf, MARKED), [USER, ANSWER] * 300
    began = time.monotonic()
    row = encode(made, {"messages": talk})
    assert time.monotonic() - began < 2, "a pass over all tokens for each mark takes five seconds"
    assert sum(row.learn or ()) == 300 * sum(encode(made, {"messages": talk[:2]}).learn or [1])


def test_the_template_for_tools_is_made_once_and_has_the_runs_clock(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    assert made.chat is not None
    made.chat.for_tools = "{{ strftime_now('%Y') }} {{ tools | length }}"
    for year in (2020, 2021):
        made.chat.clock = datetime(year, 1, 1)
        assert made.chat.render(TALK, "row 7", {"tools": [{}]})[0] == f"{year} 1"
    assert made.chat._of_tools is made.chat._of_tools
