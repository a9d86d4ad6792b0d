"""What every request must be before it reaches a handler, and what every answer carries."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from hookline_plugins.page.address import Proxies

__all__ = ["LONGEST", "Bucket", "Guard", "TooLong"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
LONGEST = 1 << 20
"""Bytes of a request's body."""
SAFE = ("GET", "HEAD")
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
     b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)  # fmt: skip


class Bucket:
    """How often something may happen: `rate` times a second on average, `burst` times at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def has(self, key: str) -> bool:
        """Whether it may happen now for a key."""
        return self._now(key) >= 1

    def take(self, key: str) -> bool:
        """Whether it may happen now for a key; if so, it counts."""
        left = self._now(key)
        self._left.pop(key, None)
        self._left[key] = (left - 1 if left >= 1 else left, time.monotonic())
        while len(self._left) > 10_000:
            self._left.popitem(last=False)
        return left >= 1

    def _now(self, key: str) -> float:
        now = time.monotonic()
        left, then = self._left.get(key, (self.burst, now))
        return min(self.burst, left + (now - then) * self.rate)


class Guard:
    """Refuses other hosts, other sites, bodies that are too long or are not JSON, and too many requests."""

    def __init__(
        self,
        app: Any,
        hosts: Collection[str],
        *,
        secure: bool,
        rate: Bucket,
        prefix: str = "",
        proxies: Proxies | None = None,
    ) -> None:
        """hosts: what `Host` may be, with the port; secure: whether people come by https; prefix: with what every path begins;
        proxies: those that are believed for whom they ask."""
        self.app, self.hosts, self.rate, self.prefix, self.proxies = app, frozenset(hosts), rate, prefix, proxies
        self.scheme = "https" if secure else "http"
        self.origins = frozenset(f"{self.scheme}://{host}" for host in hosts)
        whole = secure and not prefix  # below a prefix, the name belongs to others, too
        self.always = (*HEADERS, (b"strict-transport-security", b"max-age=31536000")) if whole else HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in headers and name in (b"host", b"origin", b"content-length", b"authorization"):
                await self._refuse(send, 400, "a header is given twice")
                return
            headers[name] = value
        scope = {**scope, "scheme": self.scheme, "root_path": self.prefix, "client": (self._client(scope), 0)}

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in self.always if pair[0] not in own)]
                if b"cache-control" not in own:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        if refused := self._why_not(scope, headers):
            await self._refuse(guarded, *refused)
            return
        if self.prefix and scope["path"] == self.prefix and scope["method"] in SAFE:
            await self._refuse(guarded, 308, "the page ends with a slash", (b"location", f"{self.prefix}/".encode()))
            return
        seen = 0

        async def limited() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > LONGEST:
                raise TooLong
            return message

        await self.app(scope, limited, guarded)

    def _why_not(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host not in self.hosts:
            return 421, "this page is not served under that name"
        if not self.rate.take(scope["client"][0]):
            return 429, "too many requests; wait a moment"
        if self.prefix and not f"{scope['path']}/".startswith(f"{self.prefix}/"):
            return 404, f"the page is at {self.prefix}/"
        if scope["method"] in SAFE:
            return None
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() not in self.origins:
            return 403, "the request comes from another site"
        if headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin":
            return 403, "the request comes from another site"
        if origin is None and b"authorization" not in headers:
            return 403, "the request does not say where it comes from"
        if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != b"application/json":
            return 415, "send application/json"
        if b"content-encoding" in headers:
            return 415, "send the body as it is, not compressed"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LONGEST:
            return 413, f"the request is longer than {LONGEST >> 20} MiB"
        return None

    def _client(self, scope: Scope) -> str:
        """The address of the person or program that asks, perhaps by a proxy."""
        peer = str((scope.get("client") or ("",))[0])
        if self.proxies is None:
            return peer
        given = (value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for")
        return self.proxies.client(peer, given)

    @staticmethod
    async def _refuse(send: Send, status: int, why: str, *more: tuple[bytes, bytes]) -> None:
        body = json.dumps({"error": why}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class TooLong(Exception):
    """The body went on beyond the limit; the application answers 413."""
