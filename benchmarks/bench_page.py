"""The annotators' page under load: durable answers per second and the time until each is acknowledged.

    make bench ARGS="benchmarks/bench_page.py -s"

A server of its own, SQLite on a local disk (WAL, synchronous=FULL), sessions and CSRF as in a browser. 32 clients in this process,
on the same processors, each answer as fast as they can, as a browser does: two questions are at hand, and the reply to an answer,
which comes when the answer is on the disk, has the next one. The time is that from the first byte sent to that reply; the store is
counted afterwards. Two ceilings are printed beside it: the same clients with a server that replies at once with the same bytes, and
the store alone, which 32 at a time lease from and append to.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline_plugins.page.access import People

CLIENTS, SECONDS, ITEMS = 32, 10.0, 12_000


WORDS = " More words." * 34
TEXTS = {
    "short texts": "{n}x",
    "80 words of prose": "The answer to question {n} needs a few words. First, it is not small; second," + WORDS,
    "80 words of Markdown": "The answer to question {n} needs *a few* words:\n\n- first\n- **second**, and `third`\n\n" + WORDS,
}


def item(number: int, text: str = TEXTS["short texts"]) -> hookline.Item:
    candidates = tuple(hookline.Candidate(text=text.format(n=number) + end) for end in (" A", " B"))
    return hookline.Item(id=f"i{number}", prompt=f"{number}", candidates=candidates)


class Client:
    """A browser's requests over one connection, without a browser's cost."""

    def __init__(self, host: str, token: str) -> None:
        self.host, self.token, self.cookie, self.check = host, token, "", ""
        self.answers: list[float] = []

    async def work(self, until: float) -> None:
        address, port = self.host.split(":")
        self.reader, self.writer = await asyncio.open_connection(address, int(port))
        head, _ = await self.ask("POST", "/enter", {"token": self.token})
        self.cookie = re.findall(r"(?i)set-cookie: ([^;]+)", head)[0]
        _, page = await self.ask("GET", "/hello")
        self.check = re.findall(r'name="csrf" content="([0-9a-f]+)"', page)[0]
        at_hand: list[str] = []
        for _ in range(2):  # the one that is answered, and the one after it
            _, body = await self.ask("GET", f"/question?beside={','.join(at_hand)}")
            at_hand.append(json.loads(body)["question"]["handle"])
        n = 0
        while time.perf_counter() < until:
            began = time.perf_counter()
            n += 1
            number = f"{self.token[:8]}-{n:08}".replace("_", "-")
            answer = {"id": number, "handle": at_hand.pop(0), "answer": {"better": n % 2}, "times": {"active": 1}, "beside": at_hand}
            head, body = await self.ask("POST", "/answer", answer)
            assert " 200 " in head.split("\r\n")[0], body
            at_hand.append(json.loads(body)["question"]["handle"])
            self.answers.append(time.perf_counter() - began)
        self.writer.close()

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[str, str]:
        raw = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Cookie: {self.cookie}"]
        if body is not None:
            lines += [f"Origin: http://{self.host}", f"X-CSRF: {self.check}"]
            lines += ["Content-Type: application/json", f"Content-Length: {len(raw)}"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + raw)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = int(re.findall(r"(?i)content-length: (\d+)", head)[0])
        return head, (await self.reader.readexactly(length)).decode()


async def load(clients: list[Client]) -> float:
    """Let clients work, and return the seconds that it took."""
    began = time.perf_counter()
    await asyncio.gather(*(client.work(began + SECONDS) for client in clients))
    return time.perf_counter() - began


def processor_time(process: int) -> float:
    """Seconds that a process has computed."""
    about = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(about[11]) + int(about[12])) / os.sysconf("SC_CLK_TCK")


AT_ONCE = """
import socket, uvicorn
async def app(scope, receive, send):
    while (await receive()).get("more_body"): pass
    asked = b'{"question": {"handle": "0123456789abcdef01234567"}, "pad": "' + b"x" * 700 + b'"}'
    body = b'name="csrf" content="0"' if scope["path"] == "/hello" else asked
    headers = [(b"set-cookie", b"a=b; x"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
listener = socket.create_server(("127.0.0.1", 0))
print("127.0.0.1:%d" % listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off")).run(sockets=[listener])
"""


def generator_alone() -> float:
    """Answers per second where the server does nothing but reply."""
    server = subprocess.Popen([sys.executable, "-c", AT_ONCE], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    host = server.stdout.readline().strip()
    clients = [Client(host, f"token-{n}") for n in range(CLIENTS)]
    try:
        took = asyncio.run(load(clients))
    finally:
        server.terminate()
        server.wait(20)
    return sum(len(client.answers) for client in clients) / took


def store_alone(rounds: int = 100) -> float:
    """Durable answers per second of a store in this process, each after a lease, 32 in a transaction."""
    with tempfile.TemporaryDirectory() as folder, hookline.store(f"sqlite:///{folder}/answers.db") as store:
        store.put([item(n) for n in range(rounds * CLIENTS)])
        began = time.perf_counter()
        for _ in range(rounds):
            items = store.together([lambda n=n: store.lease(f"ann{n}") for n in range(CLIENTS)])
            answers = [item.event(hookline.Comparison(better=0), f"ann{n}") for n, item in enumerate(items)]
            store.together([lambda event=event: store.append([event]) for event in answers])
        took = time.perf_counter() - began
        assert store.counts().events == rounds * CLIENTS
    return rounds * CLIENTS / took


@pytest.mark.parametrize("about", TEXTS)
def bench_answers_of_32_clients(about: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/answers.db"
        items = [item(n, TEXTS[about]) for n in range(ITEMS)]
        with hookline.store(store) as made:
            made.put(items)
        server = subprocess.Popen(
            [sys.executable, "-m", "hookline", "collect", "--store", store, "--port", "0"],
            cwd=folder, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert server.stdout is not None
        host = next(found[1] for line in server.stdout if (found := re.match(r"http://(\S+)/enter#", line)))
        people = People(Path(folder) / "answers.db.people.json")
        clients = [Client(host, people.invite(f"ann{n}", "annotator")) for n in range(CLIENTS)]
        try:
            before, began = processor_time(server.pid), time.process_time()
            took = asyncio.run(load(clients))
            cost, own = processor_time(server.pid) - before, time.process_time() - began
        finally:
            server.terminate()
            server.wait(20)
        answers = sorted(t for client in clients for t in client.answers)
        with hookline.store(store) as made:
            assert made.counts().events == len(answers)

        def at(share: float) -> float:
            return 1000 * answers[min(int(share * len(answers)), len(answers) - 1)]

        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
        print(
            f"\n{name}, {os.cpu_count()} processors, generator on the same, load of the machine {os.getloadavg()[0]:.1f}; {about}: "
            f"{len(answers) / took:.0f} durable answers/s, each with the next question, {CLIENTS} clients; p50 {at(0.5):.0f} ms, "
            f"p99 {at(0.99):.0f} ms; processor time of an answer: page {1e6 * cost / len(answers):.0f} µs, generator "
            f"{1e6 * own / len(answers):.0f} µs; ceiling of the generator {generator_alone():.0f}/s, of the store {store_alone():.0f}/s"
        )
