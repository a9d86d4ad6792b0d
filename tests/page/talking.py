"""A model that says what a test wants, in the place of one in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hookline import Producer
from hookline_plugins.page.writer import Reply, Writer


class Scripted(Writer):
    """Its replies are those of a function of the conversation and the seed; `hold` keeps them from being completed."""

    def __init__(self, name: str, says: Callable[[Sequence[Mapping[str, Any]], int], str | Reply]) -> None:
        super().__init__(f"/secret/{name}", {"max_new_tokens": 8, "temperature": 1.0, "device": "cpu"})
        self._by, self.says, self.hold = Producer(name=name, weights=f"hash of {name}"), says, False
        self.begun: list[Reply] = []

    def write(self, messages: Sequence[Mapping[str, Any]], seed: int) -> Reply:
        said = self.says(messages, seed)
        reply = said if isinstance(said, Reply) else Reply(text=said)
        self.begun.append(reply)
        if not self.hold and reply.state == "writing":
            reply.state, reply.why, reply.by = "done", "stop", self.by
        return reply

    def finish(self) -> None:
        self.hold = False
        for reply in self.begun:
            if reply.state == "writing":
                reply.state, reply.why, reply.by = "done", "stop", self.by

    def stop(self, reply: Reply, why: str = "stopped") -> None:
        if reply.state == "writing":
            reply.state, reply.why = "failed", why
