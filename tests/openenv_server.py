"""A server that speaks OpenEnv's protocol on `/ws`, for tests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Sessions", "sessions"]


class Sessions:
    """Counts what it is sent, as OpenEnv's server does: one environment for each connection."""

    def __init__(self) -> None:
        self.url, self.stray = "", False
        self.asked: list[dict[str, Any]] = []
        self.ready, self.ended = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)

    async def serve(self) -> None:
        from websockets.asyncio.server import serve

        async with serve(self.session, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self.ready.set()
            while not self.ended.is_set():
                await asyncio.sleep(0.02)

    async def session(self, socket: Any) -> None:
        assert socket.request.path == "/ws"
        episode, count = "", 0
        async for raw in socket:
            message = json.loads(raw)
            self.asked.append(message)
            data: dict[str, Any] = {"observation": {"text": "begin", "truncated": False}, "reward": None, "done": False}
            if message["type"] == "close":
                return
            if message["type"] == "reset":
                episode, count = message["data"]["episode_id"], 0
            elif message["type"] == "state":
                data = {"episode_id": "another" if self.stray and count else episode, "step_count": count}
            elif message["data"]["message"] == "crash":
                await socket.close()
                return
            elif message["data"]["message"] == "refuse":
                await socket.send(
                    json.dumps({"type": "error", "data": {"message": "no such move", "code": "EXECUTION_ERROR"}})
                )
                continue
            else:
                count += 1
                said = message["data"]["message"]
                data = {
                    "observation": {"text": said * 2, "truncated": said == "cut"},
                    "reward": count,
                    "done": said in ("end", "cut") or count == 50,
                }
            await socket.send(json.dumps({"type": "observation", "data": data}))


@contextmanager
def sessions() -> Iterator[Sessions]:
    """A server in a thread, at a free port."""
    served = Sessions()
    served.thread.start()
    assert served.ready.wait(20)
    yield served
    served.ended.set()
    served.thread.join(20)
