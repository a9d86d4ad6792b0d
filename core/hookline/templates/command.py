"""NAME: a command for Hookline: `hookline NAME`."""

from pathlib import Path

import hookline
from hookline import Command
from pydantic import Field


class Example(Command):
    """Count the steps of each run in a folder."""

    promises = frozenset({"runs"})

    class Config(hookline.Config):
        folder: str = Field(".", min_length=1)
        """The folder that contains the run directories."""

    def run(self, out):
        rows = [
            {"run": path.parent.name, "steps": len(path.read_text(encoding="utf-8").splitlines())}
            for path in sorted(Path(self.config.folder).glob("*/metrics.jsonl"))
        ]
        out.table(rows, columns=("run", "steps"))
        out.value(rows)
        return 0
