"""Requests to a judge's service: `POST URL/chat/completions`, repeated where that may help, ended at once where it cannot."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from hookline import ServiceError
from hookline_plugins.judging.options import JudgeOptions

if TYPE_CHECKING:
    import httpx

AT_ONCE_WRONG = frozenset({401, 402, 403, 404, 405})
"""Statuses that no other question would change."""
BUSY = frozenset({408, 409, 425, 429})
LARGEST = 8 * 2**20
"""Bytes of a reply."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, unless the service asks for more."""
LONGEST_ASKED = 300.0
"""Seconds that a service may ask to wait, in Retry-After; if it asks for more, the question has failed."""


@dataclass
class Reply:
    """What became of one question."""

    text: str | None = None
    failed: str = ""
    """Why there is no text."""
    requests: int = 0
    tokens: int = 0


class Again(Exception):
    """A try that failed and may succeed later; after `wait` seconds, if the service says so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Failed(Exception):
    """A question that another try would not answer."""


class Service:
    """One service, reached from one event loop at a time. Opens its connections when it is first asked."""

    def __init__(self, options: JudgeOptions) -> None:
        self.options = options
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(options.at_once)
        self._jitter = random.Random()

    async def ask(self, body: Mapping[str, Any], reply: Reply, before: Callable[[], None]) -> None:
        """Ask one question and fill in `reply`, also if this is cancelled. before: called before each request.

        Raises ServiceError where no question can be answered: a wrong key, model or address.
        """
        o, client = self.options, self._opened()
        content = json.dumps(body).encode()
        for number in range(1, o.tries + 1):
            try:
                async with self._slots:
                    before()
                    reply.requests += 1
                    raw, status, headers = await self._post(client, content)
                reply.text, reply.failed = self._read(raw, status, headers, reply, len(content)), ""
                return
            except Failed as err:
                reply.failed = self._scrubbed(str(err))
                return
            except Again as err:
                tries = f" ({o.tries} tries)" if o.tries > 1 else ""
                reply.failed = self._scrubbed(f"{err}{tries}")
                wait = err.wait
            if wait is not None and wait > LONGEST_ASKED:
                reply.failed += f"; it asks to wait for {wait:.0f} s"
                return
            if number < o.tries:
                drawn = min(LONGEST_WAIT, o.backoff * 2 ** (number - 1)) * self._jitter.uniform(0.5, 1.5)
                await asyncio.sleep(drawn if wait is None else wait + drawn / 10)

    async def close(self) -> None:
        """Close the connections; they are opened again if the service is asked again."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        import httpx

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop, self._slots = loop, asyncio.Semaphore(self.options.at_once)
            limits = httpx.Limits(max_connections=self.options.at_once, max_keepalive_connections=self.options.at_once)
            self._client = httpx.AsyncClient(timeout=None, limits=limits)
        return self._client

    async def _post(self, client: httpx.AsyncClient, content: bytes) -> tuple[bytes, int, Mapping[str, str]]:
        import httpx

        o = self.options
        headers = {"Content-Type": "application/json"}
        if secret := o.secret:
            headers["Authorization"] = f"Bearer {secret}"
        raw = bytearray()
        try:
            async with (
                asyncio.timeout(o.timeout) as limit,
                client.stream("POST", f"{o.address}/chat/completions", content=content, headers=headers) as response,
            ):
                async for part in response.aiter_bytes():
                    raw += part
                    if len(raw) > LARGEST:
                        raise Failed(f"{o.address} sent more than {LARGEST >> 20} MiB")
        except TimeoutError:
            if not limit.expired():
                raise
            raise Again(f"{o.address} did not finish its reply within {o.timeout:g} s") from None
        except (httpx.HTTPError, httpx.StreamError) as err:
            raise Again(f"{o.address} cannot be reached: {type(err).__name__}: {err}".removesuffix(": ")) from None
        except httpx.InvalidURL as err:
            raise self._useless(f"{o.address} is not an address: {err}") from None
        return bytes(raw), response.status_code, response.headers

    def _read(self, raw: bytes, status: int, headers: Mapping[str, str], reply: Reply, asked: int) -> str:
        """The text of a reply; what it cost is added to `reply`."""
        where = self.options.address
        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            said = None
        if status != 200:
            about = f"{where} answered {status}: {_message(said, raw)}"
            if status in AT_ONCE_WRONG or 300 <= status < 400 or _used_up(said):
                raise self._useless(about)
            raise Again(about, _wait(headers)) if status in BUSY or status >= 500 else Failed(about)
        if not isinstance(said, dict):
            raise Again(f"{where} sent what is not JSON: {_message(None, raw)}")
        reply.tokens += _tokens(said.get("usage"), asked)
        choices = said.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise Again(f"{where} sent a reply without choices: {_message(said, raw)}")
        if choice.get("finish_reason") == "length":
            longest = self.options.max_tokens
            raise Failed(f"the reply was cut off{f' after {longest} tokens' if longest else ''}; raise `max_tokens`")
        text = message.get("content")
        if isinstance(text, list):
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
        if not isinstance(text, str) or not text.strip():
            if message.get("refusal"):
                raise Failed(f"the judge refused: {_short(str(message['refusal']))}")
            raise Again(f"{where} sent an empty reply")
        return self._scrubbed(text)

    def _useless(self, why: str) -> ServiceError:
        o = self.options
        sent = f"the key of {o.key}" if o.secret else f"no key ({o.key} is not set)"
        return ServiceError(f"{self._scrubbed(why)}; asked was model '{o.model}' with {sent}", "check `url`, `model` and `key`")

    def _scrubbed(self, text: str) -> str:
        """The text without the key, which some services repeat."""
        secret = self.options.secret
        return text.replace(secret, "…") if secret else text


def _message(said: Any, raw: bytes) -> str:
    """What a service says about an error, shortened."""
    found = said
    for key in ("error", "message"):
        found = found.get(key, found) if isinstance(found, dict) else found
    found = found.get("detail", found) if isinstance(found, dict) else found
    return _short(found if isinstance(found, str) else raw[:400].decode(errors="replace"))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text}'" if len(text) <= 200 else f"'{text[:199]}…'"


def _used_up(said: Any) -> bool:
    error = said.get("error") if isinstance(said, dict) else None
    return isinstance(error, dict) and "insufficient_quota" in (error.get("code"), error.get("type"))


def _tokens(usage: Any, asked: int) -> int:
    """The tokens of question and reply; if the service does not say, an estimate of four bytes of the question to a token."""
    usage = usage if isinstance(usage, dict) else {}
    counts = [usage.get(name) for name in ("total_tokens", "prompt_tokens", "completion_tokens")]
    total, *parts = [count if isinstance(count, int) and count >= 0 else 0 for count in counts]
    return total or sum(parts) or math.ceil(asked / 4)


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds of Retry-After, which is a number or a date; None if there are none."""
    said = headers.get("retry-after", "").strip()
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
