"""NAME: a tracker for Hookline. A tracker receives every row of a run."""

import hookline
from hookline import Component, hookimpl
from pydantic import Field


class Example(Component):
    """Writes one figure of every row into RUN/NAME.txt."""

    class Config(hookline.Config):
        figure: str = Field("reward", min_length=1)
        """Name of the figure."""

    @hookimpl
    def hookline_run_started(self, run):
        self.path = run.directory / "NAME.txt"
        # after a resume some rows come again: begin with the rows that the run kept
        self.path.write_text("".join(map(self.line, run.rows())), encoding="utf-8")

    @hookimpl
    def hookline_row(self, run, row):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self.line(row))

    def line(self, row):
        value = row["metrics"].get(self.config.figure, "")
        return f"{row['phase']} {row['step']} {value}\n"
