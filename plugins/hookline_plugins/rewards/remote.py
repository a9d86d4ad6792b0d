"""Rewards of an HTTP service, asked as OpenRLHF asks a reward model: `POST {"query", "prompts", "labels"}` → `{"rewards"}`.

Healthy: `remote/NAME/failures` is 0, and the service takes less time than drawing the answers does.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

import hookline
from hookline import (
    Component,
    Context,
    DataError,
    ExperimentError,
    Metric,
    Record,
    Rollout,
    ServiceError,
    Term,
    hookimpl,
)
from hookline_plugins.judging.judge import together
from hookline_plugins.judging.options import name_of_key, wrong_address
from hookline_plugins.posting import Again, Failed, Posting, fault, message, parsed, useless
from hookline_plugins.rewards.function import name_of
from hookline_plugins.rewards.signatures import ABSENT, COLUMNS, at
from hookline_plugins.rewards.verdicts import Wrong, of_batch


class Remote(Component):
    """What a service says of each answer: a number, or null for an answer that it cannot judge.

    Rows of a request that fails are not judged; a service that refuses every request, or sends something else, ends the run.
    """

    better = "higher"

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"remote_rm_url": "url", "label_key": "label", "batch_size": "rows"}
        url: str = Field(min_length=1)
        """Where answers are posted, e.g. `http://localhost:5000/get_reward`."""
        label: str = ""
        """The column that is sent as `labels`; `a.b` looks into objects. Default: `labels` or `label`; null for rows without one."""
        rows: int = Field(32, ge=1)
        """Answers per request."""
        special_tokens: bool = True
        """Whether texts have their special tokens, as OpenRLHF sends them."""
        body: dict[str, Any] = Field(default_factory=dict)
        """Further fields of each request."""
        key: str = ""
        """The name of the environment variable whose value is sent as `Authorization: Bearer …`; empty: none is sent."""
        timeout: float = Field(180.0, gt=0)
        """Seconds for each request, until the end of its response."""
        tries: int = Field(5, ge=1, le=100)
        """Requests for the same answers, if the service is busy, fails or is not reached. After the last one, they are not judged."""
        backoff: float = Field(1.0, ge=0)
        """Seconds before the second try; they double with each further try, vary at random, and give way to Retry-After."""
        at_once: int = Field(8, ge=1)
        """Requests at a time, in each process."""

        @field_validator("url")
        @classmethod
        def _is_an_address(cls, url: str) -> str:
            if wrong := wrong_address(url):
                raise ValueError(wrong)
            return url

        @field_validator("key")
        @classmethod
        def _is_a_name(cls, key: str) -> str:
            return key and name_of_key(key)

        @field_validator("body")
        @classmethod
        def _leaves_ours_alone(cls, body: dict[str, Any]) -> dict[str, Any]:
            if taken := sorted({"query", "prompts", "labels"} & body.keys()):
                raise ValueError(f"cannot set '{taken[0]}', which is set from the rows")
            return body

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        c = config
        self.posting = Posting(timeout=c.timeout, tries=c.tries, backoff=c.backoff, at_once=c.at_once)
        self.told = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the service said beside rewards, and how often it failed."""
        _ = self.secret  # so that a missing key is refused before the run starts
        return (
            Metric(f"remote/{self.instance}/*", "mean over the numbers that the service sent under this name"),
            Metric(f"remote/{self.instance}/failures", "rows whose request failed", "rows", "sum", better="lower"),
        )

    @property
    def secret(self) -> str:
        """The key; empty if none is sent. Raises ExperimentError if the variable that `key` names holds none."""
        name = self.config.key
        secret = os.environ.get(name, "").strip() if name else ""
        if name and not re.fullmatch(r"[!-~]+", secret):
            raise ExperimentError(f"`key` names the environment variable {name}, which does not hold a key", f"export {name}=…")
        return secret

    def check_row(self, record: Record, where: str) -> None:
        if self.config.label:
            self._label(record, where)

    def close(self) -> Awaitable[None]:
        return self.posting.close()

    @hookimpl
    async def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term:
        size = self.config.rows
        parts = [range(len(rollout))[at : at + size] for at in range(0, len(rollout), size)]
        said = await together(self._journaled(ctx, rollout, rows) for rows in parts)
        values: list[float | None] = list(itertools.chain.from_iterable(one["values"] for one in said))
        failures = [(rows, one["failed"]) for rows, one in zip(parts, said) if one["failed"]]
        ctx.log(f"remote/{self.instance}/failures", sum(len(rows) for rows, _ in failures))
        for name in dict.fromkeys(name for one in said for name in one["figures"]):
            numbers = [number for one in said for number in one["figures"].get(name, ())]
            ctx.log(f"remote/{self.instance}/{name}", sum(numbers) / len(numbers), len(numbers))
        if failures and not self.told:
            self.told = True
            [(rows, why), *_] = failures
            about = f"{name_of(rollout, rows[0])} and {len(rows) - 1} more" if len(rows) > 1 else name_of(rollout, rows[0])
            ctx.run.notice(f"'{self.instance}' did not judge {about}: {why}; such rows are left out and counted")

        async def value(row: int) -> float:
            if (found := values[row]) is None:
                raise ServiceError(said[row // size]["failed"] or f"{self.config.url} sent null, which is not a reward")
            return found

        return await ctx.each(rollout, value)  # the run then knows the first failure, should no row be judged

    async def _journaled(self, ctx: Context, rollout: Rollout, rows: Sequence[int]) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            return await self._asked(rollout, rows)

        found: dict[str, Any] = await ctx.once(("remote", int(rollout.sample_B[rows[0]]), len(rows)), ask)
        return found

    async def _asked(self, rollout: Rollout, rows: Sequence[int]) -> dict[str, Any]:
        """What the service says of some rows: `values`, `figures`, and why it `failed`."""
        url, special = self.config.url, self.config.special_tokens
        body = {**self.config.body, "query": [], "prompts": [], "labels": []}
        for row in rows:
            ids = [*rollout.prompt_ids(row), *rollout.response_ids(row)]
            body["query"].append(rollout.decode(ids, special=True) if special else rollout.decode(ids))  # type: ignore[call-arg]
            body["prompts"].append(rollout.prompt_text(row, special=special))
            body["labels"].append(self._label(rollout.records[row], name_of(rollout, row)))

        def read(raw: bytes, status: int, headers: Mapping[str, str]) -> dict[str, Any]:
            said = parsed(raw)
            if status != 200:
                about = f"{url} answered {status}: {message(said, raw)}"
                if useless(status, said):
                    raise self._wrong(about)
                raise fault(about, status, headers)
            if said is None:
                raise Again(f"{url} sent what is not JSON: {message(None, raw)}")
            try:
                verdict = of_batch(said, len(rows))
            except Wrong as err:
                raise self._wrong(f"{url} sent {err.what}") from None
            return {"values": verdict.values, "figures": verdict.figures, "failed": ""}

        try:
            content = json.dumps(body, default=str).encode()
            return await self.posting.send(url, content, read, headers=self._headers)
        except Failed as err:
            return {"values": [None] * len(rows), "figures": {}, "failed": self._scrubbed(str(err))}

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"} if self.secret else {}

    def _label(self, record: Record, where: str) -> Any:
        name = self.config.label
        for path in (name,) if name else COLUMNS["openrlhf"]["labels"]:
            if (value := at(record, path)) is not ABSENT:
                return value
        if not name:
            return None
        has = ", ".join(str(key) for key in record) or "none"
        raise DataError(f"{where}: there is no column '{name}', which `label` of '{self.instance}' names; the row has {has}", "name one")

    def _wrong(self, why: str) -> ServiceError:
        return ServiceError(self._scrubbed(why), 'check `url` and `key`; the service replies {"rewards": […]}, one number per answer')

    def _scrubbed(self, text: str) -> str:
        """The text without the key, which some services repeat."""
        return text.replace(self.secret, "…") if self.secret else text
