"""`hookline export`: exports a finished phase's model."""

from __future__ import annotations

from typing import Annotated

import hookline
from hookline import Argument, Command, Out


class Export(Command):
    """Write a plain transformers folder: model and tokenizer, loadable without Hookline."""

    class Config(hookline.Config):
        run: Annotated[str, Argument("RUN")]
        """A run directory."""
        folder: Annotated[str, Argument("DIR")]
        """A new folder."""
        phase: str | None = None
        """The phase whose model is exported; default: the last finished phase."""
        best: bool = False
        """Export the weights that `save.best` kept."""
        adapter: bool = False
        """Export the adapter alone, for peft; by default it is merged into the weights."""

    has_json = False

    def run(self, out: Out) -> int:
        c = self.config
        hookline.export(c.run, c.folder, c.phase, c.best, say=out.text, adapter=c.adapter)
        return 0
