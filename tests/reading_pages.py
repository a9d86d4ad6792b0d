"""Reads a page as a browser would, for the tests of what Hookline writes as HTML."""

from __future__ import annotations

import base64
import itertools
import re
from html.parser import HTMLParser

__all__ = ["UGLY", "Page", "read"]

VOID = {"meta", "br", "img", "link", "input", "hr"}
UGLY = [
    '<script>alert("x")</script>',
    "</style></svg></title><img src=http://evil.example/x onerror=alert(1)>",
    "& &amp; < > \" ' ` =",
    "{{ 7 * 7 }}{% raw %}{#",
    "שלום עולם \u202e reversed \u2066 مرحبا",
    "word" * 100,
    "👩🏽‍🔬🏳️‍🌈 ünïcödé",
    "\x00\x07\x1b[31m\x7f\x9b\r\n\t",
    "\ud800 \ufffe",
    "$\\frac{$ %_^~ \\input{x}",
    "long answer " * 850,
]
"""Names and texts as users and plugins may give them."""


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser sees them; refuses tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)

    @property
    def said(self) -> str:
        """All text, with one space between words."""
        return " ".join(" ".join(self.text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def files(self) -> dict[str, str]:
        """What the page offers for download, by file name."""
        found = {}
        for link in self.all("a"):
            if name := link.get("download"):
                head, _, data = (link["href"] or "").partition(";base64,")
                assert re.fullmatch(r"data:[\w/+-]+;charset=utf-8", head)
                found[name] = base64.b64decode(data, validate=True).decode("utf-8")
        return found

    def is_harmless(self) -> None:
        """No script, nothing loaded from elsewhere, ids once each, references that lead somewhere, nothing unseen."""
        used = {tag for tag, _ in self.tags}
        assert not used & {
            "script",
            "img",
            "link",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "image",
            "foreignobject",
            "use",
        }
        for tag, attributes in self.tags:
            assert not [name for name in attributes if name.startswith("on")]
            target = attributes.get("href") or "#"
            assert target.startswith("#") or (tag == "a" and "download" in attributes and target.startswith("data:"))
        [policy] = [a["content"] or "" for a in self.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
        assert "default-src 'none'" in policy, "and were anything missed, the browser is told to run and load nothing"
        assert not re.search(r"@import|url\(", self.source)
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {(a["href"] or "")[1:] for a in self.all("a") if (a["href"] or "").startswith("#")} <= set(ids)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", self.source)

    def is_accessible(self) -> None:
        """A language, landmarks, headings in order, captions, row and column headings, and words for every drawing."""
        assert self.all("html")[0]["lang"] == "en"
        assert {"header", "main", "h1"} <= {tag for tag, _ in self.tags}
        levels = [int(tag[1]) for tag, _ in self.tags if re.fullmatch(r"h\d", tag)]
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        assert len(self.all("caption")) == len(self.all("table"))
        assert {th.get("scope") for th in self.all("th")} <= {"row", "col"}
        for drawing in self.all("svg"):
            assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and drawing["aria-label"])
        for link in self.all("a"):
            assert link.get("aria-label") or "download" not in link


def read(text: str) -> Page:
    return Page(text)
