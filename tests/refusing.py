"""What is refused says why in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hookline import HooklineError


def refused(kind: type[HooklineError], do: Callable[[], Any]) -> HooklineError:
    """The error of this kind that `do` raises; its message is one line."""
    with pytest.raises(kind) as err:
        do()
    assert "\n" not in err.value.message
    return err.value


def told(kind: type[HooklineError], do: Callable[[], Any]) -> str:
    """What a user reads of the error of this kind that `do` raises."""
    with pytest.raises(kind) as err:
        do()
    return str(err.value)
