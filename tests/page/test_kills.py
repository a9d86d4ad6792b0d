"""A server that is killed under load: what its clients were told is stored is stored, once, and it is ready again at once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

import hookline
from hookline_plugins.page.access import People

CLIENTS = 4


class Annotator(threading.Thread):
    """Answers as fast as it can, sends again what got no reply, and counts what was acknowledged."""

    def __init__(self, url: str, people: People, name: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.name, self.stop = url, name, stop
        self.token, self.acknowledged = people.invite(name, "annotator"), set[str]()
        self.wrong: list[str] = []

    def run(self) -> None:
        client = httpx.Client(base_url=self.url, headers={"origin": self.url}, timeout=10)
        self.ask(client, "POST", "/enter", {"token": self.token})
        client.headers["x-csrf"] = re.findall(
            r'name="csrf" content="([0-9a-f]+)"', self.ask(client, "GET", "/hello").text
        )[0]
        n = 0
        while not self.stop.is_set():
            asked = self.ask(client, "GET", "/question").json().get("question")
            if asked is None:
                return
            n += 1
            number = f"{self.name}-{n:06}"
            reply = self.ask(
                client, "POST", "/answer", {"id": number, "handle": asked["handle"], "answer": {"better": n % 2}}
            )
            if reply.status_code == 200:
                self.acknowledged.add(f"{self.name}/{number}")
            elif reply.status_code != 503:
                self.wrong.append(reply.text)

    def ask(self, client: httpx.Client, method: str, path: str, body: Any = None) -> httpx.Response:
        while True:
            try:
                reply = client.request(method, path, **({} if body is None else {"json": body}))
                if reply.status_code not in (429, 500, 503):
                    return reply
            except httpx.TransportError:
                pass
            if self.stop.is_set() and method == "GET":
                return httpx.Response(200, json={"question": None})
            time.sleep(0.02)


def begin(folder: Path, port: int, store: str) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-m", "hookline", "collect", "--store", store, "--port", str(port), "--people", str(folder / "people.json")],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert made.stdout is not None
    for line in made.stdout:
        if "/enter#" in line:
            return made
    raise AssertionError(f"the server did not begin: {made.wait()}")


def killed(folder: Path, store: str, kills: int, each: int) -> tuple[set[str], list[float]]:
    """What clients were told is stored, and how long the server took to answer after each kill, from the start of its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    items = [
        hookline.Item.model_validate({"id": f"i{n}", "prompt": f"{n}", "candidates": [{"text": "x"}, {"text": "y"}]})
        for n in range(kills * each * 2)
    ]
    with hookline.store(store) as made:
        made.put(items)
    people, stop, rng, waits = People(folder / "people.json"), threading.Event(), random.Random(1), []
    url = f"http://127.0.0.1:{port}"
    server = begin(folder, port, store)
    clients = [Annotator(url, people, f"ann{n}", stop) for n in range(CLIENTS)]
    for client in clients:
        client.start()
    for kill in range(1, kills + 1):
        while sum(len(client.acknowledged) for client in clients) < kill * each - rng.randrange(each // 2):
            assert any(client.is_alive() for client in clients), [client.wrong for client in clients]
            time.sleep(0.002)
        server.send_signal(signal.SIGKILL)
        server.wait()
        began = time.monotonic()
        server = begin(folder, port, store)
        waits.append(time.monotonic() - began)
    stop.set()
    for client in clients:
        client.join(30)
    server.send_signal(signal.SIGTERM)
    server.wait(20)
    assert not [wrong for client in clients for wrong in client.wrong]
    return {one for client in clients for one in client.acknowledged}, waits


def check(folder: Path, kills: int, each: int) -> None:
    store = f"sqlite:///{folder / 'answers.db'}"
    acknowledged, waits = killed(folder, store, kills, each)
    with hookline.store(store) as made:
        events = [event.id for event in made.events()]
        made.verify()
    counted = Counter(events)
    lost = [name for name in acknowledged if counted[name] == 0]
    doubled = [name for name, count in counted.items() if count > 1]
    print(f"{kills} kills, {len(acknowledged)} acknowledged, {len(events)} stored, {len(lost)} lost, {len(doubled)} doubled; "
          f"process to first answer at most {max(waits):.1f} s")  # fmt: skip
    assert len(acknowledged) >= kills * each // 2
    assert not lost
    assert not doubled


def test_nothing_acknowledged_is_lost_in_two_kills(tmp_path: Path) -> None:
    check(tmp_path, 2, 60)


@pytest.mark.slow(180)
def test_nothing_acknowledged_is_lost_in_25_kills(tmp_path: Path) -> None:
    check(tmp_path, 25, 500)


def test_sigterm_ends_the_page_with_everything_stored(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = begin(tmp_path, port, "answers.jsonl")
    assert httpx.get(f"http://127.0.0.1:{port}/ready").json() == {"ready": True}
    second = subprocess.run(
        [sys.executable, "-m", "hookline", "collect", "--store", "other.jsonl", "--port", str(port)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 7
    assert f"port {port} of 127.0.0.1 cannot be used" in second.stderr
    assert "Traceback" not in second.stderr
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) in (0, -signal.SIGTERM, 143)
    assert json.loads((tmp_path / "people.json").read_text())["people"]["me"]["role"] == "coordinator"
