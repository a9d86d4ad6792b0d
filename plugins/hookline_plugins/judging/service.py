"""Questions to a judge's service: `POST URL/chat/completions`, and what its replies say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hookline import ServiceError
from hookline_plugins.judging.options import JudgeOptions
from hookline_plugins.posting import Again, Failed, Posting, fault, message, parsed, short, useless


@dataclass
class Reply:
    """What became of one question."""

    text: str | None = None
    failed: str = ""
    """Why there is no text."""
    requests: int = 0
    tokens: int = 0


class Service:
    """One service, reached from one event loop at a time. Opens its connections when it is first asked."""

    def __init__(self, options: JudgeOptions) -> None:
        self.options = o = options
        self.posting = Posting(timeout=o.timeout, tries=o.tries, backoff=o.backoff, at_once=o.at_once)

    async def ask(self, body: Mapping[str, Any], reply: Reply, before: Callable[[], None]) -> None:
        """Ask one question and fill in `reply`, also if this is cancelled. before: called before each request.

        Raises ServiceError where no question can be answered: a wrong key, model or address.
        """
        content = json.dumps(body).encode()

        def requested() -> None:
            before()
            reply.requests += 1

        def failing(why: str) -> None:
            reply.failed = self._scrubbed(why)

        def read(raw: bytes, status: int, headers: Mapping[str, str]) -> str:
            return self._read(raw, status, headers, reply, len(content))

        where = self.options.address
        try:
            reply.text = await self.posting.send(
                f"{where}/chat/completions", content, read,
                where=where, headers=self._headers, before=requested, failing=failing,
            )  # fmt: skip
            reply.failed = ""
        except Failed as err:
            failing(str(err))

    async def close(self) -> None:
        """Close the connections; they are opened again if the service is asked again."""
        await self.posting.close()

    def _headers(self) -> dict[str, str]:
        secret = self.options.secret
        return {"Authorization": f"Bearer {secret}"} if secret else {}

    def _read(self, raw: bytes, status: int, headers: Mapping[str, str], reply: Reply, asked: int) -> str:
        """The text of a reply; what it cost is added to `reply`."""
        where, said = self.options.address, parsed(raw)
        if status != 200:
            about = f"{where} answered {status}: {message(said, raw)}"
            if useless(status, said):
                raise self._useless(about)
            raise fault(about, status, headers)
        if not isinstance(said, dict):
            raise Again(f"{where} sent what is not JSON: {message(None, raw)}")
        reply.tokens += _tokens(said.get("usage"), asked)
        choices = said.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        written = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(written, dict):
            raise Again(f"{where} sent a reply without choices: {message(said, raw)}")
        if choice.get("finish_reason") == "length":
            longest = self.options.max_tokens
            raise Failed(f"the reply was cut off{f' after {longest} tokens' if longest else ''}; raise `max_tokens`")
        text = written.get("content")
        if isinstance(text, list):
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
        if not isinstance(text, str) or not text.strip():
            if written.get("refusal"):
                raise Failed(f"the judge refused: {short(str(written['refusal']))}")
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


def _tokens(usage: Any, asked: int) -> int:
    """The tokens of question and reply; if the service does not say, an estimate of four bytes of the question to a token."""
    usage = usage if isinstance(usage, dict) else {}
    counts = [usage.get(name) for name in ("total_tokens", "prompt_tokens", "completion_tokens")]
    total, *parts = [count if isinstance(count, int) and count >= 0 else 0 for count in counts]
    return total or sum(parts) or math.ceil(asked / 4)
