"""A page that is served, with a store in a file, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from browsing import Browser
from proxying import Proxy, certificate_in
from serving import SECRET, Served, serve

import hookline
from hookline_plugins.asking import Question
from hookline_plugins.page.access import People
from hookline_plugins.page.address import Proxies
from hookline_plugins.page.app import Page
from hookline_plugins.page.desk import Desk
from hookline_plugins.page.talks import Talks
from hookline_plugins.page.writer import Writer


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve items: `served([item(…)], repeat_every=2)`."""
    begun: list[Served] = []

    def begin(
        items: Any = (),
        *,
        url: str = "",
        question: Question | None = None,
        title: str = "",
        guidelines: str = "",
        writers: Sequence[Writer] = (),
        replies: int = 2,
        system: str = "",
        proxy: Proxy | None = None,
        prefix: str = "",
        **desk: Any,
    ) -> Served:
        store = hookline.store(url or f"sqlite:///{tmp_path / 'answers.db'}")
        store.put(items)
        made = Desk(store, SECRET, question, **desk)
        people = People(tmp_path / "people.json")
        talks = None
        if writers:
            talks = Talks(store, SECRET, writers, made.question, made.media, replies=replies, system=system)
        more: dict[str, Any] = {"title": title, "guidelines": guidelines, "talks": talks, "prefix": prefix}
        if proxy:
            more |= {"secure": proxy.tls is not None, "proxies": Proxies()}
        begun.append(serve(lambda hosts: Page(made, people, hosts, **more), proxy))
        return begun[-1]

    yield begin
    for one in begun:
        one.stop()
        one.store.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy without TLS."""
    made = Proxy()
    yield made
    made.stop()


@pytest.fixture
def tls(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy with TLS, whose certificate clients know."""
    folder = tmp_path_factory.mktemp("tls")
    made = Proxy(certificate_in(folder))
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "cert.pem"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--lang=en",
    ):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: Any) -> Browser:
    return Browser(chromium)
