"""The routes by which people talk with a model. A page without one has none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hookline_plugins.page.answering import Wrong
from hookline_plugins.page.requests import body_of

if TYPE_CHECKING:
    from hookline_plugins.page.access import Person
    from hookline_plugins.page.app import Page
    from hookline_plugins.page.talks import Talks

__all__ = ["chat", "judge", "say", "take_back", "talk"]


def _talks(page: Page) -> Talks:
    if page.talks is None:
        raise Wrong("there is nothing here", 404)
    return page.talks


async def chat(page: Page, request: Request, person: Person) -> Response:
    _talks(page)
    return page.html("chat.html", request, person=person, guidelines=page.shown_guidelines)


async def talk(page: Page, request: Request, person: Person) -> Response:
    asked = request.query_params
    return JSONResponse(
        await run_in_threadpool(
            _talks(page).shown, person.name, asked.get("session"), turn_alone=asked.get("turn") == "alone"
        )
    )


async def say(page: Page, request: Request, person: Person) -> Response:
    return await _done(_talks(page).say, request, person)


async def take_back(page: Page, request: Request, person: Person) -> Response:
    return await _done(_talks(page).take_back, request, person)


async def judge(page: Page, request: Request, person: Person) -> Response:
    return await _done(_talks(page).judge, request, person)


async def _done(do: Callable[[str, Mapping[str, Any]], Any], request: Request, person: Person) -> Response:
    body = await body_of(request)
    return JSONResponse(await run_in_threadpool(do, person.name, body))
