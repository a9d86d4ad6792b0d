"""The page as a web application: one table of routes, each with the roles that may use it."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from hookline import DataError, HooklineError, ServiceError, Store
from hookline_plugins.page import chatting, deciding, exports, team
from hookline_plugins.page.access import People, Person
from hookline_plugins.page.address import Proxies
from hookline_plugins.page.answering import Wrong
from hookline_plugins.page.decisions import Decisions
from hookline_plugins.page.desk import Desk
from hookline_plugins.page.guard import LONGEST, Bucket, Guard, TooLong
from hookline_plugins.page.posted import post_feedback
from hookline_plugins.page.rendering import rendered
from hookline_plugins.page.requests import body_of
from hookline_plugins.page.talks import Talks
from hookline_plugins.page.turns import Turns
from hookline_plugins.page.words import LANGUAGES, WORDS, language_of

__all__ = ["ROUTES", "Page"]

HERE = Path(__file__).parent
STATIC = {
    "answering.js": "text/javascript",
    "chat.js": "text/javascript",
    "common.js": "text/javascript",
    "keys.js": "text/javascript",
    "page.js": "text/javascript",
    "team.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
}
ANYONE: tuple[str, ...] = ()
WORK = ("annotator", "coordinator")
TEAM = ("coordinator",)
APPLICATION = ("application",)
Handler = Callable[["Page", Request, Any], Awaitable[Response]]


@dataclass(frozen=True)
class Door:
    """One route: who may use it; nobody is asked who they are only where `roles` is empty."""

    method: str
    path: str
    roles: tuple[str, ...]
    handler: Handler


class Page:
    """One store's page: `page.app` is the ASGI application."""

    def __init__(
        self,
        desk: Desk,
        people: People,
        hosts: tuple[str, ...],
        *,
        secure: bool = False,
        prefix: str = "",
        proxies: Proxies | None = None,
        guidelines: str = "",
        title: str = "",
        talks: Talks | None = None,
    ) -> None:
        """hosts: the names, with the port, under which browsers reach the page; guidelines: Markdown; secure: by https; prefix: with what
        every path begins, e.g. `/team`; proxies: those that are believed for whom they ask; talks: where people talk with a model."""
        self.desk, self.people, self.hosts, self.secure = desk, people, hosts, secure
        self.prefix, self.proxies = prefix, proxies
        self.guidelines, self.title, self.talks = guidelines, title, talks
        self.entering = Bucket(1 / 6, 10)
        """Wrong links and keys, per address."""
        self.turns = Turns(desk.store)
        self.summary = team.Summary(desk.store)
        self.decisions = Decisions(desk)

    @cached_property
    def app(self) -> Guard:
        routes = [Route(door.path, self._behind(door), methods=[door.method]) for door in ROUTES]
        handlers = {404: _not_found, 405: _not_found, 500: _broken, TooLong: _too_long}
        inner = Starlette(routes=routes, exception_handlers=handlers)
        rate = Bucket(2000, 4000)
        return Guard(inner, self.hosts, secure=self.secure, rate=rate, prefix=self.prefix, proxies=self.proxies)

    def _behind(self, door: Door) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            person = self._person(request, door)
            if isinstance(person, Response):
                return person
            try:
                return await door.handler(self, request, person)
            except Wrong as err:
                return JSONResponse({"error": str(err.args[0])}, err.args[1])
            except ServiceError as err:  # nothing was stored, or it can be sent again
                return JSONResponse({"error": err.message}, 503)
            except HooklineError as err:
                return JSONResponse({"error": err.message, "hint": err.hint}, 422)

        return endpoint

    def _person(self, request: Request, door: Door) -> Person | Response | None:
        """Who asks, or the reply to somebody who may not."""
        if not door.roles:
            return None
        if "application" in door.roles:
            key = request.headers.get("authorization", "").removeprefix("Bearer ")
            known = self.people.application(key) if key and self.entering.has(_address(request)) else None
            if known is None:
                self.entering.take(_address(request))
            return known or JSONResponse({"error": "the key is not known"}, 401)
        session = request.cookies.get(self.cookie, "")
        person = self.people.of(session) if session else None
        if person is None:
            if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
                return RedirectResponse(f"{self.prefix}/hello", 303)
            return JSONResponse({"error": "come in by your link first"}, 401)
        if person.role not in door.roles:
            return JSONResponse({"error": "this is for coordinators"}, 403)
        given = request.headers.get("x-csrf", "").encode()
        if door.method != "GET" and not hmac.compare_digest(given, self.people.check(session).encode()):
            return JSONResponse({"error": "the page is out of date; load it again"}, 403)
        return person

    @property
    def cookie(self) -> str:
        if not self.secure:  # browsers give cookies to every port of a name
            port = self.hosts[0].rpartition(":")[2]
            return f"hookline-{port}" if port.isdigit() else "hookline"
        return "__Secure-hookline" if self.prefix else "__Host-hookline"

    @property
    def cookies(self) -> dict[str, Any]:
        """How the session is kept by browsers: below a prefix, only this page gets it."""
        return {"path": self.prefix or "/", "httponly": True, "samesite": "strict", "secure": self.secure}

    def remove(self, name: str, forget: bool) -> int:
        """Let a person in no more. forget: and delete all that they said; the number of deleted events is returned."""
        self.people.remove(name)
        try:
            return _forgotten(self.desk.store, name) if forget else 0
        finally:
            self.desk.forget(name)
            self.decisions.forget(name)
            self.summary.forget()
            if self.talks:
                self.talks.forget(name)

    # -- pages

    @property
    def shown_guidelines(self) -> str:
        """The guidelines as HTML."""
        return rendered(self.guidelines) if self.guidelines else ""

    def html(self, name: str, request: Request, status: int = 200, **values: Any) -> Response:
        language = language_of(request.cookies.get("language", ""), request.headers.get("accept-language", ""))
        session = request.cookies.get(self.cookie, "")
        words = WORDS[language]
        text = _templates().get_template(name).render(
            root=self.prefix, words=words, language=language,
            languages=LANGUAGES, talks=self.talks is not None, title=self.title or words["title"],
            csrf=self.people.check(session) if session else "", script_words=json.dumps(words, ensure_ascii=True).replace("<", "\\u003c"),
            **values,
        )  # fmt: skip
        return HTMLResponse(text, status)


# -- coming in


async def static(page: Page, request: Request, person: Any) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return await _not_found(request, None)
    text = (HERE / "static" / name).read_bytes()
    return Response(text, media_type=STATIC[name], headers={"cache-control": "max-age=300"})


async def ready(page: Page, request: Request, person: Any) -> Response:
    await run_in_threadpool(page.desk.store.counts)
    return JSONResponse({"ready": True})


async def hello(page: Page, request: Request, person: Any) -> Response:
    return page.html("hello.html", request)


async def enter(page: Page, request: Request, person: Any) -> Response:
    """The page of a link: it comes in only by a press of a button, so that a preview of the link does not use it up."""
    return page.html("enter.html", request)


async def come_in(page: Page, request: Request, person: Any) -> Response:
    if not page.entering.has(_address(request)):
        raise Wrong("too many tries; wait a minute", 429)
    token = (await body_of(request)).get("token")
    found = await run_in_threadpool(page.people.enter, token) if isinstance(token, str) else None
    if found is None:
        page.entering.take(_address(request))
        raise Wrong("that link was used already, or is too old; ask for a new one", 401)
    reply = JSONResponse({"role": found.role})
    reply.set_cookie(page.cookie, page.people.session(found), max_age=30 * 86400, **page.cookies)
    return reply


async def leave(page: Page, request: Request, person: Person) -> Response:
    await run_in_threadpool(page.people.leave, person.name)
    reply = JSONResponse({"left": True})
    reply.delete_cookie(page.cookie, **page.cookies)
    return reply


# -- annotators


async def label(page: Page, request: Request, person: Person) -> Response:
    if page.talks and not (await run_in_threadpool(page.desk.store.counts)).items:
        return RedirectResponse(f"{page.prefix}/chat", 303)
    return page.html("label.html", request, person=person, guidelines=page.shown_guidelines, base="")


async def question(page: Page, request: Request, person: Person) -> Response:
    handle = request.query_params.get("handle")
    beside = [one for one in request.query_params.get("beside", "").split(",") if one]

    def asked() -> dict[str, Any]:
        found = page.desk.earlier(person.name, handle) if handle else page.desk.next(person.name, beside)
        return {"question": found, "progress": page.desk.progress(person.name)}

    return JSONResponse(await page.turns.take(asked, lambda: page.desk.forget(person.name)))


async def answer(page: Page, request: Request, person: Person) -> Response:
    body = await body_of(request)

    def answered() -> dict[str, Any]:
        said = page.desk.answer(person.name, body)
        return {**said, **page.desk.following(person.name, body), "progress": page.desk.progress(person.name)}

    return JSONResponse(await page.turns.take(answered, lambda: page.desk.forget(person.name)))


async def answered(page: Page, request: Request, person: Person) -> Response:
    return JSONResponse({"answers": await run_in_threadpool(page.desk.answered, person.name)})


async def media(page: Page, request: Request, person: Person) -> Response:
    found = page.desk.media.get(request.path_params["name"])
    return Response(found[1], media_type=found[0]) if found else await _not_found(request, None)


# -- coordinators


async def team_page(page: Page, request: Request, person: Person) -> Response:
    return page.html("team.html", request, person=person, names=list(exports.FORMS))


async def figures(page: Page, request: Request, person: Person) -> Response:
    find = request.query_params.get("find", "")
    found = await run_in_threadpool(page.summary.now, page.people.names(), find)
    return JSONResponse({**found, "adjudicate": await run_in_threadpool(page.decisions.listed, find)})


async def invite(page: Page, request: Request, person: Person) -> Response:
    body = await body_of(request)
    token = await run_in_threadpool(page.people.invite, str(body.get("name", "")), str(body.get("role", "annotator")))
    return JSONResponse({"token": token})


async def remove(page: Page, request: Request, person: Person) -> Response:
    body = await body_of(request)
    name = str(body.get("name", ""))
    if name == person.name:
        raise Wrong("you cannot remove yourself", 409)
    return JSONResponse(
        {"removed": name, "events": await run_in_threadpool(page.remove, name, body.get("forget") is True)}
    )


def _forgotten(store: Store, name: str) -> int:
    """Delete all that a person said. A person may have been invited and have said nothing yet."""
    try:
        return store.forget(name)
    except DataError:
        if any(store.events(annotator=name)):
            raise
        return 0


async def export(page: Page, request: Request, person: Person) -> Response:
    name = request.path_params["name"]
    if name not in exports.FORMS:
        return await _not_found(request, None)
    form = exports.FORMS[name]
    body = await run_in_threadpool(lambda: form.write(page.desk.store.events()))
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(body, media_type=form.media_type, headers=headers)


# -- applications


async def feedback(page: Page, request: Request, person: Person) -> Response:
    body = await body_of(request)
    return JSONResponse(await run_in_threadpool(post_feedback, page.desk.store, person.name, body))


ROUTES: tuple[Door, ...] = (
    Door("GET", "/question", WORK, question),  # what is asked for most is found first
    Door("POST", "/answer", WORK, answer),
    Door("GET", "/", WORK, label),
    Door("GET", "/static/{name}", ANYONE, static),
    Door("GET", "/ready", ANYONE, ready),
    Door("GET", "/hello", ANYONE, hello),
    Door("GET", "/enter", ANYONE, enter),
    Door("POST", "/enter", ANYONE, come_in),
    Door("POST", "/leave", WORK, leave),
    Door("GET", "/answered", WORK, answered),
    Door("GET", "/media/{name}", WORK, media),
    Door("GET", "/chat", WORK, chatting.chat),
    Door("GET", "/chat/talk", WORK, chatting.talk),
    Door("POST", "/chat/say", WORK, chatting.say),
    Door("POST", "/chat/take-back", WORK, chatting.take_back),
    Door("POST", "/chat/judge", WORK, chatting.judge),
    Door("GET", "/team", TEAM, team_page),
    Door("GET", "/team/figures", TEAM, figures),
    Door("POST", "/team/invite", TEAM, invite),
    Door("POST", "/team/remove", TEAM, remove),
    Door("GET", "/team/export/{name}", TEAM, export),
    Door("GET", "/team/decide", TEAM, deciding.decide),
    Door("GET", "/team/decide/question", TEAM, deciding.case),
    Door("POST", "/team/decide/answer", TEAM, deciding.decision),
    Door("GET", "/team/decide/answered", TEAM, deciding.decided),
    Door("POST", "/feedback", APPLICATION, feedback),
)
"""Every route. A path that is not here does not exist."""


# -- requests and replies


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _not_found(request: Request, err: Any) -> Response:
    return JSONResponse({"error": "there is nothing here"}, 404)


async def _too_long(request: Request, err: Exception) -> Response:
    return JSONResponse(
        {"error": f"the request is longer than {LONGEST >> 20} MiB"}, 413, headers={"connection": "close"}
    )


async def _broken(request: Request, err: Exception) -> Response:
    return JSONResponse({"error": "something is wrong with the page; nothing was stored"}, 500)


@cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
