"""What a request holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from hookline_plugins.page.answering import Wrong

__all__ = ["body_of"]


async def body_of(request: Request) -> Mapping[str, Any]:
    """The JSON object in a request. Raises Wrong for anything else."""
    async with asyncio.timeout(20):
        raw = await request.body()
    try:
        found = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Wrong("the body is not JSON in UTF-8", 422) from None
    if not isinstance(found, dict):
        raise Wrong("the body is not a JSON object", 422)
    return found


def _no_number(text: str) -> float:
    raise ValueError(text)
