"""Who gets in, and what no request can do: links, sessions, other sites, other hosts, bodies that are too much."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Served, item

from hookline import DataError, ExperimentError
from hookline_plugins.page import access
from hookline_plugins.page.access import People, Person
from hookline_plugins.page.app import ANYONE, ROUTES, TEAM
from hookline_plugins.page.guard import Bucket

Begin = Callable[..., Served]
ANSWER = {"id": "answer-0001", "answer": {"better": 0}}


# -- people


def test_a_link_works_once_and_a_session_until_its_person_leaves(tmp_path: Path) -> None:
    people = People(tmp_path / "people.json")
    token = people.invite("ann", "annotator")
    assert people.enter(token) == Person("ann", "annotator")
    assert people.enter(token) is None
    session = people.session(Person("ann", "annotator"))
    other = People(tmp_path / "people.json")  # after a restart, and for a second server
    assert other.of(session) == Person("ann", "annotator")
    assert other.check(session) == people.check(session)
    time.sleep(0.01)
    other.leave("ann")
    assert people.of(session) is None
    assert people.of(people.session(Person("ann", "annotator"))) is not None
    people.remove("ann")
    assert people.of(session) is None


def test_a_new_link_ends_the_old_one_and_an_old_one_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = People(tmp_path / "people.json")
    first, second = people.invite("ann", "annotator"), people.invite("ann", "annotator")
    assert people.enter(first) is None
    assert people.enter(second) is not None
    third = people.invite("ann", "annotator")
    monkeypatch.setattr(access.time, "time", lambda now=time.time: now() + access.LINK + 1)
    assert people.enter(third) is None


def test_a_changed_role_is_that_of_the_next_request(tmp_path: Path) -> None:
    people = People(tmp_path / "people.json")
    people.enter(people.invite("ann", "coordinator"))
    session = people.session(Person("ann", "coordinator"))
    people.invite("ann", "annotator")
    assert people.of(session) == Person("ann", "annotator")


@pytest.mark.parametrize(
    "cut",
    [
        lambda s: s[:-1] + ("0" if s[-1] != "0" else "1"),
        lambda s: s.replace(".", "", 1),
        lambda s: "",
        lambda s: "a.b.c.d",
        lambda s: s + "0",
    ],
)
def test_a_session_that_was_not_given_here_is_nobodys(cut: Callable[[str], str], tmp_path: Path) -> None:
    people = People(tmp_path / "people.json")
    people.enter(people.invite("Ännchen 1", "annotator"))
    session = people.session(Person("Ännchen 1", "annotator"))
    assert people.of(session) is not None
    assert people.of(cut(session)) is None


def test_the_file_lets_nobody_in_and_belongs_to_its_owner(tmp_path: Path) -> None:
    people = People(tmp_path / "people.json")
    token, key = people.invite("ann", "annotator"), people.invite("app", "application")
    text = (tmp_path / "people.json").read_text()
    assert token not in text
    assert key not in text
    assert os.stat(tmp_path / "people.json").st_mode & 0o77 == 0
    assert people.application(key) == Person("app", "application")
    assert people.application(token) is None
    assert people.enter(key) is None, "a key is no link"
    (tmp_path / "people.json").write_text('{"people": 3}')
    with pytest.raises(DataError, match="not a file of the page"):
        People(tmp_path / "people.json")
    for wrong in ("", " ann", "a\nb", "x" * 61):
        with pytest.raises(DataError):
            People(tmp_path / "other.json").invite(wrong, "annotator")


# -- routes


def path_of(path: str) -> str:
    return path.replace("{name}", "events.jsonl" if "export" in path else "page.css")


@pytest.mark.parametrize("door", ROUTES, ids=lambda door: f"{door.method} {door.path}")
def test_every_route_asks_who_comes(door: Any, served: Begin) -> None:
    page = served([item("a", "x", "y")])
    with httpx.Client(base_url=page.url, headers={"origin": page.url}) as nobody:
        body = {} if door.method == "GET" else {"json": {}}
        found = nobody.request(door.method, path_of(door.path), **body).status_code  # type: ignore[arg-type]
        if door.roles:
            assert found == 401
        else:
            assert found == 200 or (door.method, door.path, found) == ("POST", "/enter", 401)
    if door.roles == TEAM:
        annotator = page.come_in("ann")
        assert annotator.request(door.method, path_of(door.path), **body).status_code == 403  # type: ignore[arg-type]
    if door.method != "GET" and door.roles not in (ANYONE, ("application",)):
        client = page.come_in("boss", "coordinator")
        del client.headers["x-csrf"]
        assert client.request(door.method, path_of(door.path), json={}).status_code == 403, (
            "without the page's own mark"
        )
        assert client.request(door.method, path_of(door.path), json={}, headers={"x-csrf": "0" * 64}).status_code == 403


def test_the_table_is_complete(served: Begin) -> None:
    page = served()
    own = {(tuple(sorted(route.methods - {"HEAD"})), route.path) for route in page.page.app.app.routes}
    assert own == {((door.method,), door.path) for door in ROUTES}
    client = page.come_in("boss", "coordinator")
    for path in ("/admin", "/static/../app.py", "/static/%2e%2e%2fapp.py", "/static/app.py", "/static//etc/passwd", "/media/../people.json",
                 "/team/export/..%2f..%2fpeople.json", "/team/export/nul", "/.git/config", "/docs", "/openapi.json"):  # fmt: skip
        assert client.get(path).status_code == 404, path
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert client.request(method, "/answer", json={}).status_code in (403, 404, 405, 415), method


# -- other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1:1"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://HOST"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-encoding": "gzip"}, 415),
    ],
    ids=str,
)
def test_requests_of_other_sites_and_forms_are_refused(headers: dict[str, str], status: int, served: Begin) -> None:
    page = served([item("a", "x", "y")])
    client = page.come_in("ann")
    asked = client.get("/question").json()["question"]
    host = page.url.removeprefix("http://")
    given = {name: value.replace("HOST", host) for name, value in headers.items()}
    reply = client.post(
        "/answer",
        content=json.dumps({**ANSWER, "handle": asked["handle"]}),
        headers={"content-type": "application/json", **given},
    )
    assert reply.status_code == status
    assert not list(page.store.events())
    ok = client.post("/answer", json={**ANSWER, "handle": asked["handle"]})
    assert ok.status_code == 200, ok.text


def test_a_write_without_an_origin_is_refused(served: Begin) -> None:
    page = served([item("a", "x", "y")])
    client = page.come_in("ann")
    del client.headers["origin"]
    assert client.post("/answer", json=ANSWER).status_code == 403


def test_every_reply_carries_the_rules_of_the_browser(served: Begin) -> None:
    page = served()
    client = page.come_in("boss", "coordinator")
    for path in ("/", "/team", "/static/page.js", "/nothing", "/question", "/team/export/answers.csv"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("max-age=300" if "static" in path else "no-store")
    for page_of in ("/", "/team", "/hello", "/enter"):
        text = client.get(page_of).text
        assert not re.search(r"\son\w+=|style=|<style|javascript:", text), "nothing inline"
        assert not re.search(r"<script(?! type=\"(application/json|module)\")", text)
    cookie = (
        page.come_in("ann")
        .post("/enter", json={"token": page.page.people.invite("bob", "annotator")})
        .headers["set-cookie"]
    )
    assert cookie.startswith(f"hookline-{page.url.rpartition(':')[2]}="), "two pages on a machine keep their own"
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()


def test_leaving_ends_every_session(served: Begin) -> None:
    page = served()
    client = page.come_in("ann")
    cookie = client.cookies[page.page.cookie]
    assert client.post("/leave", json={}).status_code == 200
    with httpx.Client(base_url=page.url, cookies={page.page.cookie: cookie}) as kept:
        assert kept.get("/question").status_code == 401


# -- too much, and nonsense


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"3", b"{", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"id": "\\ud800"}', b'{"id": 1e999}',
     b'{"id": 9223372036854775808}', b'{"id": "answer-0001", "handle": "\\u0000"}'],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_bodies_that_are_nonsense_are_refused(body: bytes, served: Begin) -> None:
    client = served([item("a", "x", "y")]).come_in("ann")
    reply = client.post("/answer", content=body, headers={"content-type": "application/json"})
    assert reply.status_code in (404, 422)
    assert reply.json()["error"]


def test_a_body_that_goes_on_is_cut_off(served: Begin) -> None:
    client = served().come_in("ann")

    def endless() -> Any:
        for _ in range(64):
            yield b" " * (1 << 16)

    try:
        status = client.post("/answer", content=endless(), headers={"content-type": "application/json"}).status_code
    except httpx.TransportError:
        status = 413  # the connection was closed while we wrote
    assert status == 413


def test_a_body_that_says_it_is_too_long_is_not_read(served: Begin) -> None:
    page = served()
    host = page.url.removeprefix("http://")
    with socket.create_connection((host.split(":")[0], int(host.split(":")[1]))) as raw:
        head = ["POST /answer HTTP/1.1", f"Host: {host}", f"Origin: {page.url}", "Content-Type: application/json"]
        raw.sendall("\r\n".join([*head, "Content-Length: 99999999999", "", ""]).encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_a_slow_or_broken_client_stops_nobody(served: Begin) -> None:
    page = served([item("a", "x", "y")])
    host, port = page.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(50)]
    for one in slow:
        one.sendall(b"POST /answer HTTP/1.1\r\nHost: x\r\n")
    assert page.come_in("ann").get("/question").status_code == 200
    for one in slow:
        one.close()


def test_links_cannot_be_guessed_fast(served: Begin) -> None:
    page = served()
    with httpx.Client(base_url=page.url, headers={"origin": page.url}) as client:
        found = [client.post("/enter", json={"token": f"guess {n}"}).status_code for n in range(30)]
    assert found[0] == 401
    assert found[-1] == 429


def test_a_whole_team_comes_in_at_once(served: Begin) -> None:
    page = served()
    assert all(page.come_in(f"ann{n}") for n in range(15))


def test_a_bucket_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("hookline_plugins.page.guard.time.monotonic", lambda: now[0])
    bucket = Bucket(2, 3)
    assert [bucket.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert bucket.take("b")
    now[0] = 0.5
    assert [bucket.take("a"), bucket.take("a")] == [True, False]


# -- an application of the user's own


def test_an_application_posts_feedback_once(served: Begin) -> None:
    page = served()
    key = page.page.people.invite("shop", "application")
    event = {
        "id": "42",
        "prompt": "hi",
        "candidates": [{"text": "hello"}],
        "answer": {"kind": "thumb", "up": True},
        "annotator": "user 7",
    }
    with httpx.Client(base_url=page.url, headers={"authorization": f"Bearer {key}"}) as client:
        assert client.post("/feedback", json={"events": [event]}).json() == {"stored": 1, "new": 1}
        assert client.post("/feedback", json={"events": [event]}).json() == {"stored": 1, "new": 0}
        changed = {**event, "answer": {"kind": "thumb", "up": False}}
        assert client.post("/feedback", json={"events": [changed]}).status_code == 409
        for wrong in (
            {},
            {"events": []},
            {"events": [3]},
            {"events": [{**event, "id": ""}]},
            {"events": [{**event, "answer": {}}]},
        ):
            assert client.post("/feedback", json=wrong).status_code == 422
    [stored] = page.store.events()
    assert (stored.annotator, stored.source) == ("shop/user 7", "shop")
    with httpx.Client(base_url=page.url, headers={"authorization": "Bearer no"}) as client:
        assert client.post("/feedback", json={"events": [event]}).status_code == 401


# -- the coordinator


def test_a_coordinator_invites_sees_and_removes(served: Begin) -> None:
    page = served([item(f"i{n}", "x", "y", overlap=2) for n in range(12)])
    boss = page.come_in("boss", "coordinator")
    for name, side in (("ann", 0), ("bob", 1)):
        client = page.come_in(name)
        for n in range(12):
            asked = client.get("/question").json()["question"]
            client.post(
                "/answer",
                json={
                    "id": f"answer-{n:04}",
                    "handle": asked["handle"],
                    "answer": {"better": side},
                    "times": {"active": 2},
                },
            )
    found = boss.get("/team/figures").json()
    assert found["counts"]["complete"] == 12
    assert {one["name"]: one["answers"] for one in found["annotators"]} == {"ann": 12, "bob": 12, "boss": 0}
    assert found["agreement"][0]["kind"] == "comparison"
    assert found["adjudicate"]
    assert "secret" not in json.dumps(found)
    every = len(found["adjudicate"])
    for find, names, disputed in (("ANN", ["ann"], every), ("a question", [], every), ("x%&", [], 0)):
        some = boss.get("/team/figures", params={"find": find}).json()
        assert [one["name"] for one in some["annotators"]] == names
        assert (some["people"], len(some["adjudicate"])) == (3, disputed)
    by_item = [boss.get("/team/figures", params={"find": f"i{n}"}).json()["adjudicate"] for n in range(10)]
    assert sum(map(len, by_item)) == every > len(by_item[1])
    token = boss.post("/team/invite", json={"name": "cat", "role": "annotator"}).json()["token"]
    assert page.page.people.enter(token) == Person("cat", "annotator")
    assert boss.post("/team/invite", json={"name": "cat", "role": "owner"}).status_code == 422
    assert boss.post("/team/remove", json={"name": "boss"}).status_code == 409
    assert boss.post("/team/remove", json={"name": "ann", "forget": True}).json()["events"] == 12
    assert {event.annotator for event in page.store.events()} == {"bob"}
    assert client.get("/question").status_code == 200


def test_what_a_spreadsheet_opens_runs_nothing(served: Begin) -> None:
    page = served([item("=1+1", '=HYPERLINK("http://evil")', "@SUM(1)", prompt="-2+3\t=x")])
    client = page.come_in("ann")
    asked = client.get("/question").json()["question"]
    client.post("/answer", json={**ANSWER, "handle": asked["handle"], "comment": "=cmd|' /C calc'!A0"})
    boss = page.come_in("boss", "coordinator")
    import csv
    import io

    reply = boss.get("/team/export/answers.csv")
    assert "attachment" in reply.headers["content-disposition"]
    cells = [cell for row in csv.reader(io.StringIO(reply.content.decode("utf-8-sig"))) for cell in row]
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r"))]
    events = [json.loads(line) for line in boss.get("/team/export/events.jsonl").text.splitlines()]
    assert events[1]["answer"]["text"] == "=cmd|' /C calc'!A0", "JSON keeps what was said"


def test_an_export_is_what_preference_training_reads(served: Begin, tmp_path: Path) -> None:
    import hookline

    page = served([item(f"i{n}", "x", "y") for n in range(3)])
    client = page.come_in("ann")
    for n, answer in enumerate([{"better": 0}, {"better": "tie"}, {"skip": "unclear"}]):
        asked = client.get("/question").json()["question"]
        assert (
            client.post(
                "/answer", json={"id": f"answer-{n:04}", "handle": asked["handle"], "answer": answer}
            ).status_code
            == 200
        )
    (tmp_path / "pairs.jsonl").write_bytes(
        page.come_in("boss", "coordinator").get("/team/export/preferences.jsonl").content
    )
    [row] = hookline.rows(str(tmp_path / "pairs.jsonl")).records
    assert {row["chosen"], row["rejected"]} == {"x", "y"}


# -- the command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "--public"),
        ({"certificate": "c.pem"}, "belong together"),
        ({"public": ("label.example.org/team",)}, "not an address"),
        ({"public": ("https://label.example.org", "other.example.org")}, "another --public"),
        ({"public": ("http://a.example", ), "certificate": "c.pem", "certificate_key": "k.pem"}, "without TLS"),
        ({"public": ("a.example",), "proxies": ("10.0.0.2",)}, "whole address|needs the address"),
        ({"public": ("https://a.example",), "proxies": ("10.0.0.2/8",)}, "host bits"),
        ({"scale": "many"}, "not a scale"),
        ({"scale": "5-1"}, "no marks"),
        ({"ask": "poetry"}, "--ask"),
        ({"guidelines": "gone.md"}, "cannot be read"),
    ],
    ids=str,
)  # fmt: skip
def test_the_command_refuses_what_cannot_be(
    options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hookline_plugins.commands.collect import Collect

    monkeypatch.chdir(tmp_path)
    command = Collect(Collect.Config(store="sqlite:///a.db", **options))
    with pytest.raises((ExperimentError, DataError), match=words):
        command.run(None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir()), "nothing was made"
