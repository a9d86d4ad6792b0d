"""Chat templates' Jinja: what transformers' environment offers them, with limits and with the run's own clock.

A template is somebody else's program. It sees plain data in a sandbox, and ends: loops and macros are counted, and what is
written, added or multiplied is measured before it is made. What `~`, `%` and filters make is measured where it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, meta, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.lexer import Token
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["Endless", "names", "rendered"]

ROUNDS = 1_000_000
"""How often loops and macros begin in one rendering."""
SIZE = 50_000_000
"""Characters of a rendering."""
COUNT, MARK = "hookline_count", "hookline_mark"


class Endless(TemplateError):
    """A template that goes on for too long."""


class _Marks(Extension):
    """`{% generation %}`, and a count at the beginning of each loop and macro."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        mark = nodes.Call(nodes.Name(MARK, "load"), [], [], None, None)
        return nodes.CallBlock(mark, [], [], body).set_lineno(line)

    def filter_stream(self, stream: Iterable[Token]) -> Iterator[Token]:
        before, repeats = "", False
        for token in stream:
            yield token
            if before == "block_begin":
                repeats = token.value in ("for", "macro")
            before = token.type
            if repeats and before == "block_end":
                repeats = False
                said = (
                    ("variable_begin", "{{"),
                    ("name", COUNT),
                    ("lparen", "("),
                    ("rparen", ")"),
                    ("variable_end", "}}"),
                )
                yield from (Token(token.lineno, kind, value) for kind, value in said)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**"})

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        return "".join(_measured(pieces))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        lengths = [len(side) for side in (left, right) if hasattr(side, "__len__")]
        times = max((abs(side) for side in (left, right) if isinstance(side, int)), default=0)
        size = sum(lengths) if operator == "+" else max(lengths, default=0) * times
        if size > SIZE or (operator == "**" and times > 64):
            raise Endless(f"makes a value of more than {SIZE:,} characters")
        return super().call_binop(context, operator, left, right)


def _measured(pieces: Iterable[str]) -> Iterator[str]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > SIZE:
            raise Endless(f"writes more than {SIZE:,} characters")
        yield piece


@pass_context
def _sized(context: Any, value: Any) -> str:
    """A value as text, counted before it is kept."""
    text = str(value)
    context[COUNT](text)
    return text


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


def _tojson(x: Any, ensure_ascii: bool = False, **how: Any) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, **how)


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, finalize=_sized, extensions=[_Marks, loopcontrols])
    made.filters["tojson"] = _tojson
    del made.globals["lipsum"]  # it writes any number of random words
    made.globals["raise_exception"] = _refuse
    made.globals["dict"] = lambda *args, **more: dict(*args, **more)  # without the attributes of a class
    return made


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


def rendered(template: str, clock: datetime | None, values: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """What a template writes, and the places that it marks as an assistant's. Raises the template's error, or Endless."""
    pieces: list[str] = []
    marks: list[tuple[int, int]] = []
    at = rounds = size = 0

    def count(text: str | None = None) -> str:
        nonlocal rounds, size
        rounds, size = rounds + (text is None), size + len(text or "")
        if rounds > ROUNDS:
            raise Endless(f"goes through its loops more than {ROUNDS:,} times")
        if size > SIZE:
            raise Endless(f"writes more than {SIZE:,} characters")
        return ""

    def mark(caller: Any) -> str:
        said: str = caller()
        marks.append((at, at + len(said)))
        return said

    now = clock or datetime.now()
    given = {**values, "strftime_now": now.strftime, COUNT: count, MARK: mark}
    for piece in _measured(_compiled(template).generate(given)):
        pieces.append(piece)
        at += len(piece)
    return "".join(pieces), marks


@lru_cache(maxsize=16)
def names(template: str) -> frozenset[str]:
    """The names that a template reads of what it is given; none if it cannot be parsed, which rendering it reports."""
    try:
        tree = _environment().parse(template)
    except TemplateError:
        return frozenset()
    return frozenset(meta.find_undeclared_variables(tree) - _environment().globals.keys() - {COUNT, MARK})
