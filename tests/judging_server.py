"""A judge's service for tests: a real HTTP server in a thread, in OpenAI's format. `Service(reply)` judges as a function says.

`reply(question)` gets the text of a question and returns the text of the reply, or what to send instead. A request without messages
is given to `reply` as it is, and gets what `reply` returns as JSON, or what to send instead.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Sent:
    """A response that is not a usual reply."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    before: float = 0.0
    """Seconds before it is sent."""
    drip: bool = False
    """Whether the body is sent byte by byte, for ever."""


Answer = str | Sent
Judge = Callable[[Any], Any]


class Service:
    """What was asked so far, and how it is answered."""

    def __init__(self, reply: Judge) -> None:
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answered: Counter[str] = Counter()
        """Question → how often a reply was sent."""
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.url = ""

    @property
    def asked(self) -> int:
        return len(self.requests)

    @property
    def questions(self) -> list[str]:
        return [str(one["messages"][-1]["content"]) for one in self.requests]


def usual(text: str, **changes: Any) -> bytes:
    """A reply as OpenAI sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **changes}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}).encode()


def part(question: str, name: str) -> str:
    """A text of the question, between its marks."""
    [found] = re.findall(rf"<{name}-(v[0-9a-f]{{7}})>\n(.*)\n</{name}-\1>", question, re.DOTALL)
    return str(found[1])


def code_of(question: str) -> str:
    return re.findall(r'\{"code": "(v[0-9a-f]{7})"', question)[-1]


def says(question: str, **verdict: Any) -> str:
    """A reply that explains itself and ends with a verdict."""
    return f"<think>hm, {{}} </think>I see.\n{json.dumps({'code': code_of(question), **verdict})}"


def by_length(question: str) -> str:
    """Rates an answer by its length, from 1 to 10."""
    return says(question, score=min(10, 1 + len(part(question, "answer"))))


@contextmanager
def serving(reply: Judge) -> Iterator[Service]:
    service = Service(reply)
    ends = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # otherwise each reply waits for 40 ms

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if not raw:  # the process that asked was killed
                self.close_connection = True
                return
            request = json.loads(raw)
            with service.lock:
                service.requests.append({**request, "path": self.path})
                service.keys.append(self.headers.get("Authorization"))
                service.now += 1
                service.most = max(service.most, service.now)
            try:
                asked = str(request["messages"][-1]["content"]) if "messages" in request else request
                said = service.reply(asked)
                sent = said if isinstance(said, Sent) else Sent(body=usual(said) if isinstance(asked, str) else json.dumps(said).encode())
                ends.wait(sent.before)
                with service.lock:
                    service.answered[str(asked)] += sent.status == 200
                self.send_response(sent.status)
                self.send_header("Content-Type", "application/json")
                for name, value in sent.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(10**9 if sent.drip else len(sent.body)))
                self.end_headers()
                self.wfile.write(sent.body)
                while sent.drip and not ends.is_set():
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.02)
            except OSError:
                self.close_connection = True
            finally:
                with service.lock:
                    service.now -= 1

        def log_message(self, *arguments: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        ends.set()
        server.shutdown()
        server.server_close()
        thread.join()
