"""The routes by which coordinators decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hookline_plugins.page.requests import body_of

if TYPE_CHECKING:
    from hookline_plugins.page.access import Person
    from hookline_plugins.page.app import Page

__all__ = ["case", "decide", "decided", "decision"]


async def decide(page: Page, request: Request, person: Person) -> Response:
    """The page: that of annotators, with what they said."""
    return page.html("label.html", request, person=person, guidelines=page.shown_guidelines, base="/team/decide")


async def case(page: Page, request: Request, person: Person) -> Response:
    handle = request.query_params.get("handle")
    found = await run_in_threadpool(page.decisions.next, person.name, handle)
    progress = await run_in_threadpool(page.decisions.progress, person.name)
    return JSONResponse({"question": found, "progress": progress})


async def decision(page: Page, request: Request, person: Person) -> Response:
    body = await body_of(request)
    return JSONResponse(await run_in_threadpool(page.decisions.decide, person.name, body))


async def decided(page: Page, request: Request, person: Person) -> Response:
    return JSONResponse({"answers": await run_in_threadpool(page.decisions.decided)})
