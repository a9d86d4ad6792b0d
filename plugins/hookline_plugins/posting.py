"""JSON posted to a service that judges: repeated where that may help, given up where it cannot."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from hookline import ServiceError

if TYPE_CHECKING:
    import httpx

Found = TypeVar("Found")
Read = Callable[[bytes, int, Mapping[str, str]], Found]
"""From the body, status and headers of a response to what it says; it may raise `Again` or `Failed`."""
AT_ONCE_WRONG = frozenset({401, 402, 403, 404, 405})
"""Statuses that no other request would change."""
BUSY = frozenset({408, 409, 425, 429})
LARGEST = 8 * 2**20
"""Bytes of a response."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, unless the service asks for more."""
LONGEST_ASKED = 300.0
"""Seconds that a service may ask to wait, in Retry-After; if it asks for more, the request has failed."""


class Again(Exception):
    """A try that failed and may succeed later; after `wait` seconds, if the service says so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Failed(Exception):
    """A request that failed, and that another try would not change."""


class Posting:
    """One service, reached from one event loop at a time. Opens its connections when it is first used."""

    def __init__(self, *, timeout: float, tries: int, backoff: float, at_once: int) -> None:
        """timeout: seconds for each try. tries: for each request. backoff: seconds before the second try, doubled with each
        further one. at_once: requests at a time."""
        self.timeout, self.tries, self.backoff, self.at_once = timeout, tries, backoff, at_once
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(at_once)
        self._jitter = random.Random()

    async def send(
        self,
        url: str,
        body: bytes,
        read: Read[Found],
        *,
        where: str = "",
        headers: Callable[[], Mapping[str, str]] = dict,
        before: Callable[[], None] = lambda: None,
        failing: Callable[[str], None] = lambda why: None,
    ) -> Found:
        """Post JSON until `read` returns. Raises Failed after the last try.

        where: what messages call the service; default: `url`. headers: called for each try. before: called before each try.
        failing: called with the reason after each failed try.
        """
        client = self._opened()
        for number in range(1, self.tries + 1):
            try:
                async with self._slots:
                    before()
                    response = await self._post(client, url, body, headers(), where or url)
                return read(*response)
            except Again as err:
                why, wait = f"{err} ({self.tries} tries)" if self.tries > 1 else str(err), err.wait
                failing(why)
            if wait is not None and wait > LONGEST_ASKED:
                raise Failed(f"{why}; it asks to wait for {wait:.0f} s")
            if number < self.tries:
                drawn = min(LONGEST_WAIT, self.backoff * 2 ** (number - 1)) * self._jitter.uniform(0.5, 1.5)
                await asyncio.sleep(drawn if wait is None else wait + drawn / 10)
        raise Failed(why)

    async def close(self) -> None:
        """Close the connections; they are opened again if the service is used again."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        import httpx

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop, self._slots = loop, asyncio.Semaphore(self.at_once)
            limits = httpx.Limits(max_connections=self.at_once, max_keepalive_connections=self.at_once)
            self._client = httpx.AsyncClient(timeout=None, limits=limits)
        return self._client

    async def _post(
        self, client: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str], where: str
    ) -> tuple[bytes, int, Mapping[str, str]]:
        import httpx

        raw = bytearray()
        try:
            async with (
                asyncio.timeout(self.timeout) as limit,
                client.stream("POST", url, content=body, headers={"Content-Type": "application/json", **headers}) as response,
            ):
                async for part in response.aiter_bytes():
                    raw += part
                    if len(raw) > LARGEST:
                        raise Failed(f"{where} sent more than {LARGEST >> 20} MiB")
        except TimeoutError:
            if not limit.expired():
                raise
            raise Again(f"{where} did not finish its reply within {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.StreamError) as err:
            raise Again(f"{where} cannot be reached: {type(err).__name__}: {err}".removesuffix(": ")) from None
        except httpx.InvalidURL as err:
            raise ServiceError(f"{where} is not an address: {err}", "check `url`") from None
        return bytes(raw), response.status_code, response.headers


def parsed(raw: bytes) -> Any:
    """The JSON of a body; None if it is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def useless(status: int, said: Any) -> bool:
    """Whether a status other than 200 says that no request to the service can succeed."""
    error = said.get("error") if isinstance(said, dict) else None
    used_up = isinstance(error, dict) and "insufficient_quota" in (error.get("code"), error.get("type"))
    return status in AT_ONCE_WRONG or 300 <= status < 400 or used_up


def fault(about: str, status: int, headers: Mapping[str, str]) -> Again | Failed:
    """What a status other than 200 means for one request."""
    return Again(about, _wait(headers)) if status in BUSY or status >= 500 else Failed(about)


def message(said: Any, raw: bytes) -> str:
    """What a service says about an error, shortened."""
    found = said
    for key in ("error", "message"):
        found = found.get(key, found) if isinstance(found, dict) else found
    found = found.get("detail", found) if isinstance(found, dict) else found
    return short(found if isinstance(found, str) else raw[:400].decode(errors="replace"))


def short(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text}'" if len(text) <= 200 else f"'{text[:199]}…'"


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
