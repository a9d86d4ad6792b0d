"""`hookline reproduce`: a run made again and compared, bit for bit."""

from __future__ import annotations

from typing import Annotated

import hookline
from hookline import Argument, Command, NumbersError, Out


class Reproduce(Command):
    """Make the same run again from what it wrote down, and compare rows, evaluations and weights, bit for bit.

    The exit code is 0 where everything is equal and 6 where a result differs. A run that cannot be repeated exactly,
    since its data, the number of threads or the like have changed, is refused with exit code 4; --anyway compares it all
    the same.
    """

    class Config(hookline.Config):
        run: Annotated[str, Argument("RUN")]
        """A run directory."""
        out: str | None = None
        """Where the new run goes; default: RUN-reproduced."""
        until: str | None = None
        """The last phase to make again; default: the last one that has finished."""
        anyway: bool = False
        """Run and compare even where equal bits cannot be expected."""

    def run(self, out: Out) -> int:
        c = self.config
        found = hookline.reproduce(c.run, c.out, until=c.until, anyway=c.anyway, say=out.text)
        out.value(found)
        return 0 if found["equal"] else NumbersError.exit_code
