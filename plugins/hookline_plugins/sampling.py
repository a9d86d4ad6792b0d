"""How answers are drawn, as options: those of `hookline.Sampling`, once for all rollouts and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

import hookline
from hookline import ExperimentError, Sampling

__all__ = ["AnswerOptions", "SamplingOptions"]

NAMES = tuple(each.name for each in fields(Sampling))


class SamplingOptions(hookline.Config):
    """The options of a rollout that draws: one for each field of `hookline.Sampling`, of the same name."""

    synonyms: ClassVar[Mapping[str, str]] = {"stop": "stop_strings", "min_tokens": "min_new_tokens", "eos_token_id": "stop_token_ids"}
    temperature: float = Field(1.0, gt=0, le=100)
    """Above 1 flattens the distribution, below 1 sharpens it."""
    top_k: int = Field(0, ge=0)
    """Keep the k likeliest tokens; 0 keeps all, 1 always takes the likeliest. Ratios are then computed over the kept tokens."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Of what `top_k` kept, keep the likeliest tokens that have this part of its probability; 1 keeps all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Keep the tokens that are at least this many times as likely as the likeliest; 0 keeps all."""
    repetition_penalty: float = Field(1.0, gt=0, le=100)
    """Above 1, tokens that the prompt or the answer has become less likely: logits above 0 are divided by it, others multiplied."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Above 0, tokens that the answer has become less likely: it is subtracted from their logits."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Above 0, tokens become less likely the more often the answer has them: it is subtracted once for each time."""
    min_new_tokens: int = Field(0, ge=0)
    """An answer has at least this number of tokens before the one that ends it."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end an answer, wherever its tokens begin and end; the answer keeps the one that ended it."""
    stop_token_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Ids of tokens that end an answer besides those that the tokenizer names; the answer keeps the one that ended it."""

    @field_validator("stop_strings", "stop_token_ids", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int) else value

    @field_validator("stop_strings")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("has an empty text; give texts of at least one character")
        return value

    @property
    def sampling(self) -> Sampling:
        """What tokens are drawn from."""
        return Sampling(**{name: getattr(self, name) for name in NAMES})

    @classmethod
    def __pydantic_init_subclass__(cls, **given: Any) -> None:
        super().__pydantic_init_subclass__(**given)
        for name in NAMES:  # shown after the component's own options
            cls.model_fields[name] = cls.model_fields.pop(name)


class AnswerOptions(SamplingOptions):
    """The options of a command that draws answers, all but the seed."""

    only: ClassVar[str] = ""
    """The option of the command without which these do nothing, e.g. `--prompts`; their help says so."""

    max_new_tokens: int | None = Field(None, ge=1)
    """The maximum number of tokens of an answer. Default: 256, or what the model's context leaves if that is less."""
    temperature: float = Field(1.0, ge=0, le=100)
    """Above 1 flattens the distribution, below 1 sharpens it; 0 takes the likeliest token."""
    top_k: int = Field(0, ge=0)
    """Draw from this number of likeliest tokens; 0: from all."""
    device: str = "auto"
    """The device of the model: `cpu`, `cuda`, or `auto`."""

    @classmethod
    def __pydantic_init_subclass__(cls, **given: Any) -> None:
        super().__pydantic_init_subclass__(**given)
        if cls.only:
            for name in AnswerOptions.model_fields:
                said = cls.model_fields[name].description or ""
                cls.model_fields[name].description = f"With {cls.only}: {said[:1].lower()}{said[1:]}"

    def check_idle(self, *more: str) -> None:
        """Where `only` was not given: raise ExperimentError for an option that then does nothing. more: further ones of the command."""
        fields = type(self).model_fields
        idle = [
            name for name in (*more, *AnswerOptions.model_fields) if getattr(self, name) != fields[name].get_default()
        ]
        if idle:
            raise ExperimentError(
                f"--{idle[0].replace('_', '-')} does nothing without {self.only}", f"add {self.only}, or leave it out"
            )

    def drawing(self) -> dict[str, Any]:
        """These options, as `hookline.generate` takes them."""
        return self.model_dump(include=set(AnswerOptions.model_fields))
