"""What models write is shown and never run: whatever the text, the HTML has a few tags and no attributes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_plugins.page.rendering import PROSE, Media, _markdown, conversation, rendered, visible
from reading_pages import UGLY, read

TAGS = {
    "p",
    "br",
    "hr",
    "em",
    "strong",
    "code",
    "pre",
    "blockquote",
    "ul",
    "ol",
    "li",
    "h4",
    "s",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
PIECES = ["a word", "1", "2.", "3)", " ", "\n", "\n\n", "-", "+", "=", "'", '"', "(é)", "x: y", "!", "…", "*b*", "_", "&amp;", "<p>", "`c`"]
HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![a](http://evil.example/x.png)",
    "<svg onload=alert(1)>", "<math><mi xlink:href='javascript:alert(1)'>", "</textarea><script>alert(1)</script>", "[a](data:text/html,x)",
    "<a href=http://evil.example>x</a>", "```js onload=alert(1)\n</code></pre><script>alert(1)</script>\n```",
    "<!--><img src=x onerror=alert(1)>-->",
    "| a |\n|:-:|\n| <img src=x onerror=alert(1)> |", "<style>*{position:fixed}</style>", "[a]: javascript:alert(1)\n\n[a]", "<http://evil.example/?c>",
    "![<img src=x onerror=alert(1)>](x)", "1. a\n" * 3, "> " * 500 + "x", "[" * 2000, "*" * 3000, *UGLY,
]  # fmt: skip


def is_harmless(html: str) -> None:
    page = read(html)
    for tag, attributes in page.tags:
        assert tag in TAGS, tag
        assert not set(attributes) - ({"start"} if tag == "ol" else set()), (tag, attributes)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
@pytest.mark.parametrize("markdown", [True, False])
def test_hostile_texts_are_shown(text: str, markdown: bool) -> None:
    html = rendered(text, markdown=markdown)
    is_harmless(html)
    html.encode("utf-8")


@given(st.text(alphabet=st.sampled_from(list("<>&\"'`*_[]()!#|-:\\/ \n\tabc=1.~^{}$\x00\ud800\u202e")), max_size=80))
def test_no_text_makes_an_attribute(text: str) -> None:
    is_harmless(rendered(text))


def test_markdown_is_shown_as_such() -> None:
    html = rendered(
        "# Title\n\n**bold** `code` [text](http://a.example)\n\n- one\n\n```python\nx < 1\n```\n\n| a |\n|---|\n| b |"
    )
    for part in (
        "<h4>Title</h4>",
        "<strong>bold</strong>",
        "<code>code</code>",
        "text (http://a.example)",
        "<li>",
        "<pre><code>x &lt; 1",
        "<td>b</td>",
    ):
        assert part in html


def test_what_cannot_be_seen_gets_a_picture() -> None:
    assert visible("a\x00b\x1b\x7f\x9b\ud800\r\nc\t") == "a␀b␛\ufffd\ufffd\ufffd\nc\t"


def test_images_come_as_data_alone() -> None:
    png = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 20).decode()
    media = Media()
    parts: list[Any] = [
        {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": png}}, {"type": "image", "image": png},
        {"type": "image_url", "image_url": {"url": "http://evil.example/x.png"}}, 
        {"type": "image", "image": "data:image/svg+xml;base64,PHN2Zz4="},
        {"type": "image", "image": "data:image/png;base64,PHN2Zz4="}, {"type": "image", "image": "/etc/passwd"},
    ]  # fmt: skip
    [turn] = conversation([{"role": "user", "content": parts}], media)
    assert len(turn["images"]) == 2
    assert turn["html"].count("[image]") == 4
    assert media.get(turn["images"][0]) == ("image/png", b"\x89PNG\r\n\x1a\n" + b"0" * 20)
    assert media.get("0") is None
    assert "evil" not in json.dumps(turn)


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
def test_prose_is_the_same_without_the_parser(text: str) -> None:
    if PROSE.fullmatch(text):
        assert rendered(text) == _markdown().render(text)
    else:
        assert PROSE.fullmatch(f"{text}*") is None


def test_a_long_text_costs_time_in_proportion_to_its_length() -> None:
    assert PROSE.fullmatch("word " * 200_000 + "*") is None
