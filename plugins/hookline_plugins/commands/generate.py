"""`hookline generate` and `hookline chat`: ask a run's model, or a transformers folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import hookline
from hookline import Argument, Command, DataError, Out


class Asked(hookline.Config):
    """How answers are drawn."""

    max_new_tokens: int = Field(128, ge=1)
    """The maximum number of tokens of an answer."""
    temperature: float = Field(1.0, ge=0, le=100)
    """Above 1 flattens the distribution, below 1 sharpens it; 0 takes the likeliest token."""
    top_k: int = Field(0, ge=0)
    """Draw from this number of likeliest tokens; 0: from all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the likeliest tokens that have this probability together."""
    seed: int = 0
    """The same seed gives the same answers."""
    device: str = "auto"
    """The device of the model: `cpu`, `cuda`, or `auto`."""


class Generate(Command):
    """Answer prompts with a run's model, or with a transformers folder."""

    class Config(Asked):
        model: Annotated[str, Argument("MODEL")]
        """A run directory, RUN/phases/NAME, or a transformers folder."""
        prompt: Annotated[list[str], Argument("PROMPT")] = Field(default_factory=list)
        """Texts to answer."""
        rows: str | None = None
        """A .jsonl file with `prompt` or `messages` in each row, answered in order."""
        beside: str | None = None
        """A second model, asked the same, e.g. the folder that training began with."""
        out: str | None = None
        """Write the rows with a `response` (and a `beside`) to this .jsonl file."""

    def run(self, out: Out) -> int:
        c = self.config
        records: list[dict[str, Any]] = [{"prompt": text} for text in c.prompt]
        if c.rows:
            records += [dict(record) for record in read(c.rows)]
        if not records:
            raise DataError("there is nothing to answer", "give a PROMPT, or --rows FILE.jsonl")
        options = c.model_dump(include=set(Asked.model_fields))
        answers = hookline.generate(c.model, records, **options)
        others = hookline.generate(c.beside, records, **options) if c.beside else []
        made = [{**record, "response": answer} for record, answer in zip(records, answers)]
        for row, other in zip(made, others):
            row["beside"] = other
        out.value(made)
        for row in made:
            out.text(
                row["response"] if not c.beside else f"{c.model}: {row['response']}\n{c.beside}: {row['beside']}\n"
            )
        if c.out:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
            Path(c.out).expanduser().write_text(lines, encoding="utf-8")
        return 0


def read(path: str) -> list[dict[str, Any]]:
    """The rows of a .jsonl file."""
    found = []
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(
            f"{path} cannot be read: {getattr(err, 'strerror', None) or err}", "give a .jsonl file"
        ) from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as err:
                raise DataError(f"{path} line {number} is not JSON: {err}", "write one object per line") from None
            if not isinstance(row, dict):
                raise DataError(f"{path} line {number} is not an object", "write one object per line")
            found.append(row)
    return found


class Chat(Command):
    """Talk with a run's model, or with a transformers folder, through its chat template; an empty line ends it."""

    class Config(Asked):
        model: Annotated[str, Argument("MODEL")]
        """A run directory, RUN/phases/NAME, or a transformers folder."""
        system: str = ""
        """A system prompt."""

    has_json = False

    def run(self, out: Out) -> int:
        c = self.config

        def ask() -> str | None:
            if sys.stdin.isatty():
                sys.stdout.write("> ")
                sys.stdout.flush()
            line = sys.stdin.readline().rstrip("\n")
            return line or None

        def say(piece: str) -> None:
            sys.stdout.write(piece)
            sys.stdout.flush()

        options = c.model_dump(include=set(Asked.model_fields))
        hookline.chat(c.model, ask, say, system=c.system, **options)
        return 0
