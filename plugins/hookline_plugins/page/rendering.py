"""Texts of models and people as HTML that a browser can only show. Every text is hostile: it is escaped, and Markdown makes
a few tags without attributes. Nothing is fetched, so that an image cannot tell its author who looked, or unblind a side.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

__all__ = ["Media", "beginning", "conversation", "rendered", "visible"]

DATA = re.compile(r"data:image/(png|jpeg|gif|webp);base64,([A-Za-z0-9+/=\s]+)\Z")
BEGINS = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}
LARGEST = 8 << 20
"""Bytes of an image."""
MEMORY = 64 << 20
"""Bytes of images that are kept; a question that is shown again brings its own back."""


HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def visible(text: str) -> str:
    """A text without what cannot be shown: control characters become their pictures, halves of characters a mark."""
    return HIDDEN.sub(lambda c: chr(0x2400 + ord(c[0])) if c[0] < " " else "\ufffd", text.replace("\r\n", "\n"))


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])

    def link(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
        token = tokens[at]
        if token.type == "link_open":
            env.setdefault("links", []).append(str(token.attrGet("href") or ""))
            return ""
        return f" ({html.escape(env['links'].pop())})"

    def image(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
        return html.escape(f"[{tokens[at].content or 'image'}] ({tokens[at].attrGet('src') or ''})")

    def fence(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
        return f"<pre><code>{html.escape(tokens[at].content)}</code></pre>\n"

    for name, rule in (
        ("link_open", link),
        ("link_close", link),
        ("image", image),
        ("fence", fence),
        ("code_block", fence),
    ):
        made.add_render_rule(name, rule)
    return made


LINE = r"""(?!\d+[.)])[^\W_](?:[^\W_]|[ ,.;:?!'"()/%$@+=’‘“”–—…-])*(?<! )"""
PROSE = re.compile(rf"{LINE}(?:\n+{LINE})*")
"""Paragraphs in which nothing is Markdown, as most of what people write; the parser takes fifty times as long for them."""


@lru_cache(maxsize=1024)
def rendered(text: str, *, markdown: bool = True) -> str:
    """A text as HTML. Links are shown with their address and lead nowhere."""
    if markdown and PROSE.fullmatch(text):
        escaped = text.replace('"', "&quot;")
        return "".join(f"<p>{paragraph}</p>\n" for paragraph in re.split(r"\n\n+", escaped))
    plain = visible(text)
    if not markdown:
        return f"<pre>{html.escape(plain)}</pre>"
    try:
        made: str = _markdown().render(plain)
    except (RecursionError, ValueError, IndexError):
        return f"<pre>{html.escape(plain)}</pre>"
    made = re.sub(r'<(t[hd]) style="text-align:\w+">', r"<\1>", made)  # the page allows no styles of a text
    return re.sub(r"<(/?)h[1-6]>", r"<\1h4>", made)  # a text's headings are below those of the page


class Media:
    """Images that came in as data, shown under the hash of their content."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, bytes]] = {}

    def keep(self, address: Any) -> str | None:
        """The name of an image that is given as a data URL; None for anything else, which is never fetched."""
        found = DATA.match(address) if isinstance(address, str) and len(address) < LARGEST * 4 // 3 + 64 else None
        if found is None:
            return None
        try:
            raw = base64.b64decode(found[2], validate=False)
        except ValueError:
            return None
        if not raw.startswith(BEGINS[found[1]]):
            return None
        name = hashlib.sha256(raw).hexdigest()
        self._kept.pop(name, None)
        self._kept[name] = f"image/{found[1]}", raw
        while sum(len(one) for _, one in self._kept.values()) > MEMORY:
            self._kept.pop(next(iter(self._kept)))
        return name

    def get(self, name: str) -> tuple[str, bytes] | None:
        """The type and the bytes of an image."""
        return self._kept.get(name)


def beginning(prompt: str | Sequence[Mapping[str, Any]], most: int = 120) -> str:
    """The beginning of a prompt, or of the last message of a conversation."""
    text = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", "")) if prompt else ""
    return text[:most]


def conversation(
    prompt: str | Sequence[Mapping[str, Any]], media: Media, *, markdown: bool = True
) -> list[dict[str, Any]]:
    """A prompt as turns: `role`, `html`, and `images` by name."""
    if isinstance(prompt, str):
        return [{"role": "user", "html": rendered(prompt, markdown=markdown), "images": []}]
    turns = []
    for message in prompt:
        content = message.get("content")
        parts = content if isinstance(content, list) else [content]
        texts, images = [], []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif isinstance(part, Mapping):
                address = part.get("image") or (part.get("image_url") or {})
                address = address.get("url") if isinstance(address, Mapping) else address
                name = media.keep(address)
                images += [name] if name else []
                texts += [] if name else ["[image]"]
        for call in message.get("tool_calls") or ():
            texts.append(f"```\n{call}\n```")
        role = message.get("role")
        turns.append({
            "role": role if role in ("system", "user", "assistant", "tool") else "user",
            "html": rendered("\n\n".join(texts), markdown=markdown),
            "images": images,
        })  # fmt: skip
    return turns
