"""`hookline data`: what a file of rows holds, what is wrong with it, and the same rows in another format."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

import hookline
from hookline import Argument, Command, ExperimentError, Out

GREEN, PLAIN = "\033[32m", "\033[0m"


class Data(Command):
    """Look at rows as training sees them: `inspect` describes them, `validate` checks each, `convert` writes another file."""

    class Config(hookline.Config):
        verb: Annotated[Literal["inspect", "validate", "convert"], Argument("inspect|validate|convert")]
        """What to do."""
        data: Annotated[str, Argument("DATA")]
        """A file, a folder, a pattern, FORMAT:FILE, or builtin:NAME/SPLIT."""
        file: Annotated[list[str], Argument("[FILE]")] = Field(default_factory=list)
        """`convert`: the file to write; its ending says the format, e.g. rows.parquet or rows.jsonl.gz."""
        model: str | None = None
        """A transformers folder or a run: lengths in tokens, and the first row with what is learned in colour."""
        split: str | None = None
        """A split of a folder, and a part of it, e.g. `train[:1000]`."""
        subset: str | None = None
        """A subfolder of a dataset's folder, or an entry of dataset_info.json."""
        shape: str | None = None
        """How columns are understood, e.g. `alpaca`, where they do not tell."""
        columns: list[str] = Field(default_factory=list)
        """Hookline's field and the file's column, e.g. `prompt=question`; may be repeated."""
        chat: bool = False
        """Turn text into messages."""
        system: str | None = None
        """With --chat: a system message before each conversation."""
        longest: int | None = Field(None, ge=1)
        """`validate`: the maximum number of tokens of a row; default: the model's context."""
        to: str | None = None
        """`convert`: the shape to write, e.g. `messages`, `sharegpt`, `alpaca`; `events`, or a format of judgements, e.g. `argilla`;
        default: the rows as they are read."""
        overwrite: bool = False
        """`convert`: replace a file that is there."""

        @field_validator("columns")
        @classmethod
        def _pairs(cls, value: list[str]) -> list[str]:
            if wrong := next((item for item in value if not all(item.partition("="))), None):
                raise ValueError(f"'{wrong}' is not FIELD=COLUMN")
            return value

    def run(self, out: Out) -> int:
        if self.config.verb == "convert":
            return self._convert(out)
        if self.config.longest and not self.config.model:
            raise ExperimentError("--longest counts tokens, which needs --model", "name the model's folder")
        if self.config.to:
            raise ExperimentError(f"`{self.config.verb}` writes no file, so --to does nothing", "leave --to out")
        if self.config.file:
            raise ExperimentError(f"`{self.config.verb}` writes no file", "leave FILE out")
        return self._inspect(out) if self.config.verb == "inspect" else self._validate(out)

    @property
    def options(self) -> dict[str, Any]:
        """How the rows are read, in the words of an experiment's section `data`."""
        pairs = (item.partition("=") for item in self.config.columns)
        read = self.config.model_dump(include={"split", "subset", "shape", "chat", "system"}, exclude_none=True)
        return {**read, "columns": {field: column for field, _, column in pairs}}

    def _inspect(self, out: Out) -> int:
        found = hookline.inspect_data(self.config.data, model=self.config.model, **self.options)
        out.value(asdict(found))
        read = f", read as '{found.shape}'" if found.shape else ""
        out.text(f"{self.config.data}: {found.rows} rows of {found.kind or 'no field that training reads'}{read}")
        out.table([{"column": name, "holds": types} for name, types in found.columns.items()])
        if found.roles:
            out.text("speakers: " + ", ".join(f"{who} {count}" for who, count in found.roles.items()))
        for part, sizes in found.lengths.items():
            out.text(f"{part}: median {sizes['median']}, 95 % up to {sizes['p95']}, longest {sizes['max']} {found.unit}")
        if found.example:
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            begin, end = (GREEN, PLAIN) if colour else ("[[", "]]")
            out.text(f"first row, learned {'in green' if colour else 'in [[ ]]'}:")
            out.text("".join(f"{begin}{text}{end}" if learned else text for text, learned in found.example))
        for note in found.notes:
            out.text(f"note: {note}")
        return 0

    def _validate(self, out: Out) -> int:
        c = self.config
        rows, findings = hookline.validate_data(c.data, model=c.model, longest=c.longest, **self.options)
        out.value({"rows": rows, "findings": [asdict(one) for one in findings]})
        for one in findings:
            out.text(f"{'error' if one.error else 'warning'}: {one.rows} rows: {one.what} (first: {one.where})")
        wrong = sum(one.rows for one in findings if one.error)
        out.text(f"{c.data}: {rows} rows, {wrong} cannot be used" if wrong else f"{c.data}: {rows} rows, all can be used")
        return 3 if wrong else 0

    def _convert(self, out: Out) -> int:
        c = self.config
        if len(c.file) != 1:
            raise ExperimentError("`convert` writes one file", "hookline data convert DATA FILE")
        count = hookline.convert_data(c.data, c.file[0], to=c.to, overwrite=c.overwrite, **self.options)
        out.value({"rows": count, "file": c.file[0]})
        out.text(f"{count} rows → {c.file[0]}")
        return 0
