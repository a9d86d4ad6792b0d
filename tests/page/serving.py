"""The page as its users have it: a real server in a thread, and people who came in by their links."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import uvicorn
from proxying import Proxy

from hookline import Item, Store
from hookline_plugins.page.app import Page

SECRET = b"s" * 32


def item(name: str, *texts: str, **more: Any) -> Item:
    """An item whose candidates were written by models that must not be seen."""
    by = [{"name": f"secret-model-{n}"} for n in range(len(texts))]
    return Item.model_validate({
        "id": name, "prompt": "a question", "candidates": [{"text": t, "by": b} for t, b in zip(texts, by)], **more,
    })  # fmt: skip


class Served:
    """A page that is being served."""

    def __init__(self, page: Page, url: str, store: Store, stop: Callable[[], None]) -> None:
        self.page, self.url, self.store, self.stop = page, url, store, stop

    def link(self, name: str, role: str = "annotator") -> str:
        return f"{self.url}/enter#{self.page.people.invite(name, role)}"

    def come_in(self, name: str, role: str = "annotator") -> httpx.Client:
        """A client of somebody who came in, with what each request of theirs needs."""
        origin = "/".join(self.url.split("/")[:3])
        client = httpx.Client(base_url=self.url, headers={"origin": origin}, timeout=30)
        reply = client.post("/enter", json={"token": self.page.people.invite(name, role)})
        assert reply.status_code == 200, reply.text
        found = re.search(r'name="csrf" content="([0-9a-f]+)"', client.get("/hello").text)
        assert found is not None
        client.headers["x-csrf"] = found[1]
        return client


def serve(page_of: Callable[[tuple[str, ...]], Page], proxy: Proxy | None = None) -> Served:
    """Serve a page, behind a proxy if there is one."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    page = page_of((proxy.host if proxy else host,))
    config = uvicorn.Config(page.app, log_level="critical", lifespan="off", access_log=False, proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def stop() -> None:
        server.should_exit = True
        thread.join(10)

    if proxy:
        proxy.target = host
    return Served(page, f"{'https' if page.secure else 'http'}://{page.hosts[0]}{page.prefix}", page.desk.store, stop)
