"""What a chat template is given and may do: texts and parts, the environment that transformers offers, and limits."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import test_chat
import test_turns
from test_chat import ANSWER, GENERATES, TALK, USER, having, seen

from hookline.errors import DataError
from hookline.tokens.encode import encode
from hookline.tokens.jinja import rendered
from hookline.tokens.tokenizer import Tokenizer
from shapes import SHAPES

PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endfor %}"
    + GENERATES
)
BOTH = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" + GENERATES
)


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def test_text_in_parts_is_text_to_a_template_that_reads_text(shelf: Path) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    talk = [{**USER, "content": parts("open")}, {**ANSWER, "content": parts("read it")}]
    assert seen(made, {"messages": talk}) == seen(made, {"messages": TALK[:2]})
    two = seen(made, {"messages": [{**USER, "content": ["open", *parts("it")]}, ANSWER]})
    assert "<|im_start|>user\nopen\nit<|im_end|>" in two


def test_a_template_of_parts_gets_parts_and_one_of_both_what_the_row_has(shelf: Path) -> None:
    alone = {"messages": [{**USER, "content": parts("open", "it")}, ANSWER]}
    assert "user\nopenit<|im_end|>" in seen(having(shelf, PARTS), alone)
    assert "user\nopen<|im_end|>" in seen(having(shelf, PARTS), {"messages": TALK[:2]})
    assert "user\n[open][it]<|im_end|>\n<|im_start|>assistant\n[read it<|im_end|>]" in seen(having(shelf, BOTH), alone)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            {"type": "image_url", "image_url": {"url": "a.png"}},
            "message 1 has a part of type 'image_url', and rows are text",
        ),
        ({"type": "input_audio", "input_audio": {}}, "message 1 has a part of type 'input_audio'"),
        ({"type": "text"}, "message 1 has a part without text"),
        (5, "message 1 has a part without text"),
    ],
)
def test_parts_that_are_no_text_are_refused(shelf: Path, part: Any, said: str) -> None:
    made = Tokenizer.load(shelf / "qwen2")
    with pytest.raises(DataError, match="row 7") as caught:
        encode(made, {"messages": [{**USER, "content": [*parts("open"), part]}, ANSWER]}, where="row 7")
    assert said in str(caught.value)
    with pytest.raises(DataError, match="message 1 has a part of type 'image'"):
        encode(made, {"messages": [{"role": "tool", "content": [{"type": "image"}]}, ANSWER]}, where="row 7")


def test_a_tools_result_that_is_a_list_reaches_the_template(shelf: Path) -> None:
    made = having(
        shelf,
        "{% for m in messages %}{{ m.content | tojson if m.role == 'tool' else m.content }}<|im_end|>{% endfor %}",
    )
    talk = [{"role": "tool", "content": [{"price": 5}, {"type": "sedan"}]}, ANSWER]
    assert '[{"price": 5}, {"type": "sedan"}]<|im_end|>' in seen(made, {"messages": talk})


OWN = """
{%- macro show(x, loud=false) -%}{{ x | upper if loud else x }}{%- endmacro %}
{% set ns = namespace(seen=0, who={}) %}
{%- for m in messages %}
    {%- if m.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.seen = ns.seen + 1 %}
    {{- '<|im_start|>' ~ m.role ~ '\\n' }}
    {%- if m.role == 'assistant' %}{% generation %}{{ show(m.content) }}<|im_end|>{% endgeneration %}
    {%- else %}{{ show(m.content, loud=true) }}{{ dict(a='<é>', b=[1, none]) | tojson }}{{ '-' * 3 }}<|im_end|>{% endif %}

    {%- if loop.last %}{% break %}{% endif %}
{%- endfor %}{{ tools is none }}{{ documents is none }}{{ ns.seen }} {{ bos_token }}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def stand_ins() -> list[str]:
    """Every template of these tests, and those of the six shapes."""
    found = [shape.template for shape in SHAPES.values()] + [PARTS, BOTH, OWN]
    for module in (test_chat, test_turns):
        found += [value for value in vars(module).values() if isinstance(value, str) and "messages %}" in value]
    return found


def test_templates_are_rendered_as_transformers_renders_them(shelf: Path) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    special = {"bos_token": "<s>", "eos_token": "</s>"}
    assert len(stand_ins()) > 15
    for template in map(re.sub, *zip(*[(r"strftime_now\(.*?\)", "'today'", text) for text in stand_ins()])):
        contents = parts("open") if template == PARTS else "open"
        talk = [{**message, "content": contents, "thinking": "a"} for message in TALK]
        for start in (False, True):
            [theirs], marks = render_jinja_template(
                [talk],
                chat_template=template,
                add_generation_prompt=start,
                return_assistant_tokens_mask=True,
                **special,
            )
            given = {"messages": talk, "tools": None, "documents": None, "add_generation_prompt": start, **special}
            ours, places = rendered(template, None, given)
            assert ours == theirs
            assert places == list(marks[0])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "goes through its loops more than 30,000 times"),
        ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}", "goes through its loops"),
        ("{% for i in range(90000) %}{{ 'word ' * 90000 }}{% endfor %}", "writes more than 50,000,000 characters"),
        ("{% set x %}{% for i in range(90000) %}{{ 'word ' * 90000 }}{% endfor %}{% endset %}", "writes more than 50,000,000 characters"),
        ("{{ 'word' * 10 ** 10 }}", "makes a value of more than 50,000,000 characters"),
        ("{% set n = namespace(x='word') %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}", "makes a value of more than"),
        ("{% for i in range(9000) %}" + "word " * 2000 + "{% endfor %}", "writes more than 50,000,000 characters"),
        ("{{ lipsum(n=9) }}", "refuses the conversation: 'lipsum' is undefined"),
        ("{{ 9 ** 9 ** 9 }}", "makes a value of more than"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "refuses the conversation: Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "refuses the conversation: maximum recursion depth"),
        ("{{ messages.__class__.__mro__ }}", "refuses the conversation: access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "refuses the conversation: access to attribute 'append'"),
        ("{{ cycler.__init__.__globals__ }}", "refuses the conversation: access to attribute '__init__'"),
        ("{% include 'a' %}", "refuses the conversation: no loader"),
        ("{% for m in messages %}", "refuses the conversation: Unexpected end of template"),
    ],
)  # fmt: skip
def test_MT8_a_template_ends_and_stays_inside(
    shelf: Path, template: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.tokens.jinja.ROUNDS", 30_000)  # a million takes seconds
    made = having(shelf, template)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"^row 7: the experiment's chat_template") as caught:
        encode(made, {"messages": TALK}, where="row 7")
    assert said in str(caught.value)
    assert len(caught.value.message) < 400
    assert time.monotonic() - began < 10
