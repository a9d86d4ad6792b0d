"""`hookline reproduce`: repeats a run and compares the results bit for bit."""

from __future__ import annotations

from typing import Annotated

import hookline
from hookline import Argument, Command, NumbersError, Out


class Reproduce(Command):
    """Repeat a run from its own records, and compare rows, evaluations and weights bit for bit.

    The exit code is 0 if everything is equal and 6 if a result differs. A run that cannot be repeated exactly, for example
    because its data or the number of threads have changed, is refused with exit code 4; with --anyway it is compared
    nevertheless.
    """

    class Config(hookline.Config):
        run: Annotated[str, Argument("RUN")]
        """A run directory."""
        out: str | None = None
        """Directory of the new run; default: RUN-reproduced."""
        until: str | None = None
        """The last phase to repeat; default: the last finished phase."""
        anyway: bool = False
        """Run and compare even if equal bits cannot be expected."""

    def run(self, out: Out) -> int:
        c = self.config
        found = hookline.reproduce(c.run, c.out, until=c.until, anyway=c.anyway, say=out.text)
        out.value(found)
        return 0 if found["equal"] else NumbersError.exit_code
