"""The options of a judge: where it is, what it is asked, and what that may cost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

import hookline
from hookline import ExperimentError, LocalPath

KEY = "OPENAI_API_KEY"
"""The environment variable of the key, unless `key` names another one; only this one may be unset."""
OURS = frozenset({"model", "messages", "temperature", "max_tokens", "response_format", "stream", "n"})
"""Fields of a request that `body` cannot set."""


class Budget(hookline.Config):
    """What a judge may spend in a run, all processes and resumes together."""

    requests: int | None = Field(None, ge=1)
    """Requests, repeated ones included; none: no limit."""
    tokens: int | None = Field(None, ge=1)
    """Tokens of questions and replies as the service counts them; replies that are under way are still paid. None: no limit."""


class Reached(hookline.Config):
    """How a judge is reached: what the file of an experiment and the command line say in the same words."""

    url: str = ""
    """The service, e.g. `http://localhost:8000/v1`; `/chat/completions` is added. Default: the environment variable
    OPENAI_BASE_URL."""
    model: str = Field(min_length=1, max_length=300)
    """The model that judges, by the service's name for it."""
    key: str = KEY
    """The name of the environment variable that holds the key, never the key itself. If OPENAI_API_KEY is not set, no key is sent."""
    template: LocalPath | None = None
    """A file with the text of the question, in place of the built-in text; see docs/rewards.md."""
    pattern: str | None = None
    """A regular expression for judges that write verdicts in a form of their own; it is searched in the last line of a reply.
    Default: the line of JSON that `{{ verdict }}` asks for, which an answer cannot forge."""
    timeout: float = Field(60.0, gt=0)
    """Seconds for each request, until the end of its reply."""
    tries: int = Field(5, ge=1, le=100)
    """Requests for each question, if the service is busy, fails or is not reached. After the last one, the answer is not judged."""
    at_once: int = Field(16, ge=1)
    """Requests at a time, in each process."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if url and (wrong := wrong_address(url)):
            raise ValueError(wrong)
        return url

    @field_validator("key")
    @classmethod
    def _is_a_name(cls, key: str) -> str:
        return name_of_key(key)

    @field_validator("pattern")
    @classmethod
    def _can_be_searched(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern).groups if pattern is not None else 1
        except re.error as err:
            raise ValueError(f"is not a regular expression: {err}") from None
        if not groups:
            raise ValueError("has no group: put parentheses around the verdict, e.g. `Score: ([0-9.]+)`")
        return pattern


class JudgeOptions(Reached):
    """How a judge is reached and asked; components that ask one derive their Config from this."""

    system: str = ""
    """A system message before each question; empty: none."""
    question: str | None = None
    """The text of `template` in the experiment itself."""
    temperature: float | None = Field(0.0, ge=0, le=2)
    """0 is the judge's most likely verdict; larger values vary. None: not sent, for services that refuse it."""
    max_tokens: int | None = Field(1024, ge=1)
    """Longest reply, in tokens. A reply that is cut off is not a verdict, so judges that think need more. None: not sent; some
    services need `body: {max_completion_tokens: …}` in its place."""
    response_format: Literal["json_object", "json_schema"] | None = None
    """Lets the service force the reply to be JSON; none: the judge may explain itself first."""
    body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, e.g. `{seed: 1, chat_template_kwargs: {enable_thinking: false}}`."""
    backoff: float = Field(1.0, ge=0)
    """Seconds before the second try; they double with each further try, vary at random, and give way to the service's Retry-After."""
    budget: Budget = Field(default_factory=Budget)
    """What may be spent in the whole run. Where it is used up, the run ends; raise it and run the same command again."""
    cache: LocalPath | None = None
    """A file of replies that several runs share. The run keeps its own in `judged.jsonl` anyway."""

    @field_validator("body")
    @classmethod
    def _leaves_ours_alone(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(OURS & body.keys()):
            raise ValueError(f"cannot set '{taken[0]}', which the judge sets itself")
        return body

    @model_validator(mode="after")
    def _has_one_text(self) -> Self:
        if self.template is not None and self.question is not None:
            raise ValueError("has a `template` and a `question`; both are the text of the question, so leave one out")
        return self

    @property
    def address(self) -> str:
        """The service's address without `/chat/completions`. Raises ExperimentError if there is none."""
        url = self.url or os.environ.get("OPENAI_BASE_URL", "")
        if not url:
            raise ExperimentError("the judge has no `url`, and OPENAI_BASE_URL is not set", "set url: http://HOST:PORT/v1")
        if wrong := wrong_address(url):
            raise ExperimentError(f"OPENAI_BASE_URL {wrong}", "set url: http://HOST:PORT/v1")
        return url.rstrip("/").removesuffix("/chat/completions")

    @property
    def secret(self) -> str:
        """The key; empty if none is sent. Raises ExperimentError if the variable that `key` names holds none."""
        secret = os.environ.get(self.key, "").strip()
        if not secret and self.key != KEY:
            raise ExperimentError(f"`key` names the environment variable {self.key}, which is not set", f"export {self.key}=…")
        if not re.fullmatch(r"[!-~]*", secret):
            wrong = f"the environment variable {self.key} does not hold a key: it has blanks or unusual characters"
            raise ExperimentError(wrong, f"export {self.key}=…")
        return secret


class RatingOptions(JudgeOptions):
    """The options of a component that asks for numbers, or for the better one of two answers."""

    scale: tuple[float, float] = (1, 10)
    """Of ratings: the lowest and the highest number; one outside it is not a verdict."""
    axes: dict[str, str] = Field(min_length=1)
    """Of ratings: what is rated, name → meaning."""

    @property
    def compares(self) -> bool:
        """Whether two answers are compared, in place of ratings."""
        return False

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if not self.scale[0] < self.scale[1]:
            raise ValueError("has a `scale` whose first number is not below its second")
        if wrong := next((axis for axis in self.axes if not axis.isidentifier() or axis == "code"), ""):
            raise ValueError(f"has an axis '{wrong}'; its name must be letters, digits and `_`, and not `code`")
        if not self.compares and (wrong := unreadable(self.axes, self.pattern)):
            raise ValueError(wrong)
        return self


def unreadable(axes: Iterable[str], pattern: str | None) -> str:
    """Why a verdict about these axes cannot be read; empty if it can."""
    axes = list(axes)
    if "code" in axes:
        return "has an axis 'code', which is the name of the question's own code in a verdict"
    groups = re.compile(pattern).groupindex if pattern is not None and len(axes) > 1 else axes
    missing = next((axis for axis in axes if axis not in groups), "")
    return f"has several axes, and `pattern` has no group (?P<{missing}>…)" if missing else ""


def name_of_key(key: str) -> str:
    """The name of a key's variable. Raises ValueError if it is none, without repeating it: it may be the key."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", key):
        raise ValueError(f"must be the name of an environment variable in capitals, such as {KEY}, and not the key itself")
    return key


def wrong_address(url: str) -> str:
    """What is wrong with an address, without repeating it; empty if nothing is."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is not an address such as http://localhost:8000/v1"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must begin with http:// or https:// and a host, such as http://localhost:8000/v1"
    if parts.username is not None or parts.query or parts.fragment:
        return "must not hold a password or a query; `key` names the environment variable of a key"
    return ""
