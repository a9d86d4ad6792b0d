"""`hookline generate` and `hookline chat`: ask a run's model, or a transformers folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import hookline
from hookline import Argument, Command, DataError, Out
from hookline_plugins.sampling import AnswerOptions


class Asked(AnswerOptions):
    """How answers are drawn."""

    seed: int = 0
    """The same seed gives the same answers."""

    def drawing(self) -> dict[str, Any]:
        return {**super().drawing(), "seed": self.seed}


class Generate(Command):
    """Answer prompts with a run's model, or with a transformers folder."""

    class Config(Asked):
        model: Annotated[str, Argument("MODEL")]
        """A run directory, RUN/phases/NAME, or a transformers folder."""
        prompt: Annotated[list[str], Argument("PROMPT")] = Field(default_factory=list)
        """Texts to answer."""
        rows: str | None = None
        """A data name, e.g. a .jsonl file, with `prompt` or `messages` in each row, answered in order."""
        beside: str | None = None
        """A second model, asked the same, e.g. the folder that training began with."""
        out: str | None = None
        """Write the rows with a `response` (and a `beside`) to this .jsonl file."""

    def run(self, out: Out) -> int:
        c = self.config
        records: list[dict[str, Any]] = [{"prompt": text} for text in c.prompt]
        if c.rows:
            records += [dict(record) for record in hookline.rows(c.rows).records]
        if not records:
            raise DataError("there is nothing to answer", "give a PROMPT, or --rows FILE.jsonl")
        if c.out:
            write(c.out, "", "a")  # before minutes of drawing
        options = c.drawing()
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
            write(c.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made))
        return 0


def write(path: str, text: str, mode: str = "w") -> None:
    """Write a file that the user named."""
    try:
        with Path(path).expanduser().open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as err:
        raise DataError(f"{path} cannot be written: {err.strerror}", "choose another file") from None


class Chat(Command):
    """Talk with a run's model, or with a transformers folder, through its chat template; an empty line ends it, and a
    conversation that has filled the model's context begins anew."""

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
            try:
                line = sys.stdin.readline().rstrip("\n")
            except UnicodeDecodeError as err:
                raise DataError(f"the message is not UTF-8 text: {err.reason}", "write it as UTF-8") from None
            return line.encode(errors="surrogateescape").decode(errors="replace") or None

        def say(piece: str) -> None:
            sys.stdout.write(piece)
            sys.stdout.flush()

        def note(text: str) -> None:
            sys.stderr.write(f"{text}\n")

        options = c.drawing()
        hookline.chat(c.model, ask, say, system=c.system, note=note, **options)
        return 0
