"""The page behind a real proxy: its address in all that browsers get, whom limits count, and what is refused."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from browsing import NEEDS, Browser
from proxying import Proxy
from serving import Served, item
from talking import Scripted

import hookline
from hookline import Comparison, ExperimentError
from hookline_plugins.page.address import address_of, proxies_of
from needs import needs_program

pytestmark = [*NEEDS, needs_program("openssl", "apt-get install openssl")]
Begin = Callable[..., Served]
PREFIX = "/team"
"""As a page of its own is called, so that a prefix taken off twice, or not at all, is noticed."""
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


# -- addresses


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://label.example.org", "https://label.example.org"),
        ("https://Label.Example.org:443/", "https://label.example.org"),
        ("http://label.example.org:80/a/b/", "http://label.example.org/a/b"),
        ("https://label.example.org:8443/team", "https://label.example.org:8443/team"),
        ("https://[::1]:8443/x", "https://[::1]:8443/x"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
    ],
)
def test_an_address_is_read_as_browsers_write_it(given: str, read: str) -> None:
    assert str(address_of(given)) == read


@pytest.mark.parametrize(
    "given",
    ["label.example.org/team", "ftp://a.example", "https://", "https:///team", "https://a.example:port", "https://a.example:99999",
     "https://me@a.example", "https://a.example/?x=1", "https://a.example/#x", "https://a.example/a//b", "https://a.example/../b",
     "https://a.example/a b", 'https://a.example/"x', "https://a.example/%2e", "https://a_b$.example", "https://*.example", "https://[::1"],
)  # fmt: skip
def test_what_no_browser_opens_as_it_is_written_is_no_address(given: str) -> None:
    with pytest.raises(ExperimentError, match="--public"):
        address_of(given)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # the first is what the stranger claims
        ("127.0.0.1", ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9, 127.0.0.1"], "127.0.0.1"),  # somebody on this machine, who claims to be another
        ("127.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9"),  # a declared proxy in front of the one here
        ("10.0.0.2", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.2", ["198.51.100.1, 203.0.113.9:555"], "203.0.113.9"),  # with the port, as some gateways write it
        ("10.0.0.2", ["198.51.100.1, [2001:db8::7]:555"], "2001:db8::7"),
        ("10.0.0.2", ["[2001:db8::7]"], "2001:db8::7"),
        ("10.0.0.2", ["203.0.113.9:x"], "10.0.0.2"),
        ("10.0.1.2", ["203.0.113.9"], "10.0.1.2"),
        ("203.0.113.9", ["127.0.0.1"], "203.0.113.9"),  # nobody becomes a proxy by saying so
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9,"], "127.0.0.1"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxys(peer: str, forwarded: list[str], client: str) -> None:
    assert proxies_of(["10.0.0.0/24"]).client(peer, forwarded) == client


# -- what browsers get


def test_all_that_a_page_names_is_below_the_prefix(tls: Proxy, served: Begin) -> None:
    page = served([item("a", "x", "y")], writers=[Scripted("m", lambda *_: "one")], proxy=tls, prefix=PREFIX)
    boss = page.come_in("boss", "coordinator")
    named = set()
    for path in ("/", "/hello", "/enter", "/team", "/team/decide", "/chat"):
        reply = boss.get(path)
        assert reply.status_code == 200, path
        named |= set(re.findall(r'(?:href|src)="([^"]*)"', reply.text))
    assert {"/team/", "/team/chat", "/team/team", "/team/static/page.js", "/team/team/export/answers.csv"} <= named
    for name in named:
        assert name.startswith("/team/")
        assert httpx.get(f"https://{tls.host}{name}", cookies=boss.cookies).status_code == 200, name


def test_redirects_stay_below_the_prefix(tls: Proxy, served: Begin) -> None:
    page = served(writers=[Scripted("m", lambda *_: "one")], proxy=tls, prefix=PREFIX)
    html = {"accept": "text/html"}
    with httpx.Client(base_url=f"https://{tls.host}", headers=html) as nobody:
        assert nobody.get("/team").headers["location"] == "/team/"
        assert nobody.get("/team/").headers["location"] == "/team/hello"
        assert nobody.get("/team/hello/").headers["location"] == f"{page.url}/hello"
        for other in ("/", "/hello", "/teams", "/teams/hello", "/static/page.js", "/TEAM/hello"):
            assert nobody.get(other).status_code == 404, other
    assert page.come_in("ann").get("/", headers=html).headers["location"] == "/team/chat", "there are no items"


def test_the_session_is_kept_for_the_page_alone_and_sent_by_tls_alone(tls: Proxy, served: Begin) -> None:
    page = served([item("a", "x", "y")], proxy=tls, prefix=PREFIX)
    client = page.come_in("ann")
    token = page.page.people.invite("bob", "annotator")
    reply = client.post("/enter", json={"token": token})
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("__Secure-hookline=")
    assert {"Path=/team", "Secure", "HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert "strict-transport-security" not in reply.headers, "the name belongs to others, too"
    assert client.post("/leave", json={}).status_code == 403, "the page was another person's"
    client = page.come_in("cat")
    assert client.post("/leave", json={}).status_code == 200
    assert not client.cookies


def test_without_a_path_the_cookie_belongs_to_the_name(tls: Proxy, served: Begin) -> None:
    page = served([item("a", "x", "y")], proxy=tls)
    client = page.come_in("ann")
    assert list(client.cookies) == ["__Host-hookline"]
    assert client.get("/question").headers["strict-transport-security"]


def test_other_names_and_other_sites_are_refused(tls: Proxy, served: Begin) -> None:
    page = served([item("a", "x", "y")], proxy=tls, prefix=PREFIX)
    client = page.come_in("ann")
    assert client.get("/question", headers={"host": tls.target}).status_code == 421
    assert httpx.get(f"http://{tls.target}/team/hello").status_code == 421, "past the proxy"
    for origin in (f"http://{tls.host}", "https://localhost", f"http://{tls.target}"):
        assert client.post("/leave", json={}, headers={"origin": origin}).status_code == 403, origin


# -- limits


def guesses(page: Served, local: str, claimed: str) -> list[int]:
    """What 15 wrong links get that somebody at `local` tries, who claims to be at `claimed`."""
    headers = {"origin": page.url, "x-forwarded-for": claimed}
    with httpx.Client(base_url=page.url, headers=headers, transport=httpx.HTTPTransport(local_address=local)) as client:
        return [client.post("/enter", json={"token": f"guess {n}"}).status_code for n in range(15)]


def test_limits_count_those_for_whom_the_proxy_asks(proxy: Proxy, served: Begin) -> None:
    page = served(proxy=proxy)
    assert guesses(page, "127.0.0.2", "203.0.113.1")[-1] == 429
    assert guesses(page, "127.0.0.3", "203.0.113.1")[0] == 401, "somebody else may still try"
    assert guesses(page, "127.0.0.2", "203.0.113.2")[0] == 429, "and nobody becomes another one by saying so"


def test_without_a_public_address_nobody_speaks_for_another(served: Begin) -> None:
    page = served()
    assert guesses(page, "127.0.0.2", "203.0.113.1")[-1] == 429
    assert guesses(page, "127.0.0.2", "203.0.113.2")[0] == 429


# -- as it is used


def test_a_team_works_below_a_prefix_in_a_browser(browser: Browser, proxy: Proxy, served: Begin) -> None:
    talking = Scripted("m", lambda messages, seed: f"reply {seed % 97}")
    seen = [{"role": "user", "content": [{"type": "image", "image": DOT}, {"type": "text", "text": "What is it?"}]}]
    page = served(
        [item("a", "x", "y", prompt=seen), item("b", "x", "y")], writers=[talking], proxy=proxy, prefix=PREFIX
    )
    browser.come_in(page)
    browser.driver.get_log("browser")
    assert browser.driver.current_url == f"{page.url}/"
    browser.until(lambda: browser.one("#turns img").get_property("naturalWidth") == 1)
    browser.keys("1")
    assert isinstance(browser.submit(page).answer, Comparison)
    browser.one("nav a[href$='/chat']").click()
    browser.until(lambda: browser.one("#message").is_displayed())
    browser.until(lambda: browser.driver.execute_script("return document.activeElement.id") == "message")
    browser.keys("h", "i", "ENTER")
    browser.until(lambda: browser.text("#asked").startswith("Which"))
    browser.keys("1", "ENTER")
    browser.until(lambda: page.store.counts().events == 2)
    kept = browser.driver.execute_script("return Object.keys(localStorage)")
    assert kept
    assert all(name.startswith("/team ") for name in kept), "another page of that name keeps its own"
    browser.one("#leave").click()
    browser.until(lambda: browser.driver.current_url == f"{page.url}/hello")
    browser.come_in(page, "boss", "coordinator")
    browser.driver.get(f"{page.url}/team")
    browser.until(lambda: browser.all("#people tr"))
    browser.one("#name").send_keys("cat")
    browser.one("#invite button").click()
    link = browser.until(lambda: browser.text("#link code"))
    assert link.startswith(f"{page.url}/enter#")
    browser.one("#decide").click()
    browser.ready()
    assert browser.driver.current_url == f"{page.url}/team/decide"
    assert not [entry for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_the_command_prints_a_link_that_lets_simulated_annotators_in(tls: Proxy, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "candidates": ["x", "longer"]} for n in range(4)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "gold.py").write_text("def score(prompt, answer):\n    return float(len(answer))\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tls.target, public = f"127.0.0.1:{port}", f"https://{tls.host}/team"
    hook = [sys.executable, "-m", "hookline"]
    collect = subprocess.Popen(
        [*hook, "collect", "--items", "items.jsonl", "--store", "sqlite:///a.db", "--port", port, "--public", public],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert collect.stdout is not None
        link = next(line for line in collect.stdout if "/enter#" in line).strip()
        assert link.startswith(f"{public}/enter#")
        done = subprocess.run(
            [*hook, "annotate", link, "--by", "gold.py:score", "--noise", "0", "--answers", "4"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        collect.terminate()
        collect.wait(20)
    with hookline.store(f"sqlite:///{tmp_path / 'a.db'}") as store:
        assert [event.answer for event in store.events()] == [Comparison(better=1)] * 4
