"""The section `data` of an experiment: names for data that needs more than a path, such as columns, a split or a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from hookline.contract.fields import Strict
from hookline.storage.paths import expanded

__all__ = ["DataSpec", "Part", "Reads", "Wanted"]

Column = Annotated[str, Field(min_length=1)]
Plain = str | int | float | bool | None


class Wanted(Strict):
    """The values of a column that a filter keeps: some values, or a range of numbers with both its ends."""

    values: tuple[Plain, ...] | None = None
    min: float | None = None
    max: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return value
        return {"values": value if isinstance(value, list | tuple) else [value]}

    @model_validator(mode="after")
    def _holds_something(self) -> Wanted:
        if (self.values is None) == (self.min is None and self.max is None):
            raise ValueError("must be a value, a list of values, or a range with `min` or `max`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"has a min of {self.min:g} above its max of {self.max:g}")
        return self


class Reads(Strict):
    """How the rows of files are read."""

    split: str | None = None
    """A split of a folder, and a part of it: `test`, `train[:1000]`, `train[10%:20%]`, `[100:]`."""
    subset: str | None = None
    """A subfolder of a dataset's folder, or an entry of dataset_info.json."""
    shape: str | None = None
    """How columns are understood, e.g. `alpaca`, where the columns alone do not tell; see docs/data.md."""
    columns: dict[Column, Column] = Field(default_factory=dict)
    """Hookline's field → the file's column; `a.b` is the field `b` of column `a`: `{prompt: question, answer: extra.solution}`."""
    message: dict[str, Column] = Field(default_factory=dict)
    """In conversations: `role` and `content` → the keys that the file has instead."""
    roles: dict[Column, str] = Field(default_factory=dict)
    """In conversations: a speaker of the file → `system`, `user`, `assistant` or `tool`."""

    @field_validator("message")
    @classmethod
    def _keys(cls, value: dict[str, str]) -> dict[str, str]:
        if strange := next((key for key in value if key not in ("role", "content")), None):
            raise ValueError(f"has no key '{strange}'; it has: role, content")
        return value


class Part(Reads):
    """One source of a mixture."""

    path: Annotated[str, Field(min_length=1), AfterValidator(expanded)]
    """A file, a folder, a pattern such as `rows/*.parquet`, `FORMAT:FILE`, `builtin:NAME/SPLIT` or `task:NAME/SPLIT`."""
    weight: float | None = Field(None, gt=0, allow_inf_nan=False)
    """The share of this source in an epoch, relative to those of the others. Default: as many rows as it has."""


class DataSpec(Reads):
    """Rows from one source or several."""

    path: tuple[Part, ...] = Field(min_length=1)
    """A path, or several; a mapping `{path: …, weight: …, columns: …}` where one needs options of its own."""
    chat: bool = False
    """Turn text into messages: a prompt becomes the user's, a completion the assistant's, so that the model's chat template
    applies to files without messages."""
    system: str | None = None
    """With `chat`: the text of a system message before each conversation that has none."""
    filter: dict[Column, Wanted] = Field(default_factory=dict)
    """Keep only rows whose column has this value, one of these values, or a number in this range: `{language: en, score: {min: 3}}`."""
    unique: bool = False
    """Keep the first of several rows with the same prompt."""
    heldout: float = Field(0.0, ge=0, lt=1)
    """The share of prompts, chosen by a hash of the prompt, that NAME/heldout has and NAME does not have."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | list | tuple) else value

    @field_validator("path", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        several = value if isinstance(value, list | tuple) else [value]
        return [{"path": item} if isinstance(item, str) else item for item in several]

    @model_validator(mode="after")
    def _makes_sense(self) -> DataSpec:
        if self.system is not None and not self.chat:
            raise ValueError("has a `system` text without `chat: true`, which makes messages of text")
        weighed = [part.weight is not None for part in self.path]
        if any(weighed) and not all(weighed):
            raise ValueError("gives a weight to some sources only; give one to each, or to none")
        return self

    def reads(self, part: Part) -> Reads:
        """How a source is read: as it says itself, else as the data says. In a written experiment every part has every option."""
        return Reads(**{name: getattr(part, name) or getattr(self, name) for name in Reads.model_fields})
