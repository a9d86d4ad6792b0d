"""NAME: a file format for Hookline.

It reads files called `FILE.NAME`; `NAME:FILE` reads a file of any name.
"""

import hookline
from hookline import DataError, Format
from pydantic import Field


class Example(Format):
    """One row per line: a prompt and its completion, with a tab between them."""

    suffixes = (".NAME",)

    class Config(hookline.Config):
        comment: str = Field("#", min_length=1)
        """Lines that begin with this text are skipped."""

    def read(self, path):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as err:
            raise DataError(f"{path} cannot be read: {err}", "save it as UTF-8 text") from None
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith(self.config.comment):
                continue
            prompt, tab, completion = line.partition("\t")
            if not tab:
                raise DataError(f"{path} line {number}: no tab", "write prompt, tab, completion")
            yield {"prompt": prompt, "completion": completion}
