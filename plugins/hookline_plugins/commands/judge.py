"""`hookline judge`: a language model answers what annotators are asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

import hookline
from hookline import Argument, Command, ExperimentError, LocalPath, Out, StoreName
from hookline_plugins.judging.options import KEY, JudgeOptions


class JudgeItems(Command):
    """Ask a language model about the items of a store, beside people or in their place; comparisons are asked in both orders.

    What it says is stored as it comes, under the name `judge:MODEL`, and takes no place of an annotator. The same command goes on
    where it ended.
    """

    class Config(hookline.Config):
        store: Annotated[StoreName, Argument("STORE")]
        """Where the items are: `sqlite:///eval.db` or `eval.jsonl`. Comparisons and ratings are judged, others are left out."""
        model: str = Field(min_length=1, max_length=150)
        """The model that judges, by the service's name for it."""
        url: str = ""
        """The service, e.g. `http://localhost:8000/v1`. Default: the environment variable OPENAI_BASE_URL."""
        key: str = KEY
        """The name of the environment variable that holds the key, never the key itself."""
        template: LocalPath | None = None
        """A file with the text of the question, in place of the built-in text; see docs/rewards.md."""
        pattern: str | None = None
        """For judges that write verdicts in a form of their own: a regular expression for the last line of a reply."""
        max_tokens: int = Field(1024, ge=1)
        """Longest reply, in tokens."""
        temperature: float = Field(0.0, ge=0, le=2)
        """0 is the judge's most likely verdict."""
        at_once: int = Field(16, ge=1)
        """Requests at a time."""
        tries: int = Field(5, ge=1, le=100)
        """Requests for each question, if the service is busy, fails or is not reached."""
        timeout: float = Field(60.0, gt=0)
        """Seconds for each request."""
        answers: int = Field(0, ge=0)
        """The number of items to judge now; 0: all."""

    def run(self, out: Out) -> int:
        from hookline_plugins.judging.items import judge_items

        c = self.config
        try:
            options = JudgeOptions(**c.model_dump(exclude={"store", "answers"}))
        except ValueError as err:
            raise ExperimentError(f"hookline judge: {err}", "see hookline judge --help") from None
        with hookline.store(c.store, create=False) as store:
            said = judge_items(store, options, most=c.answers)
        out.value(
            {"annotator": said.annotator, "judged": said.judged, "failed": len(said.failed), "left_out": said.left_out}
        )
        out.text(f"{said.annotator}: {said.judged} items judged, {said.requests} requests, {said.tokens} tokens")
        if said.failed:
            name, why = said.failed[0]
            out.text(
                f"note: {len(said.failed)} items were not judged, e.g. {name}: {why}; the same command asks about them again"
            )
        if said.left_out:
            out.text(f"note: {said.left_out} items ask for something else than comparisons and ratings and were left out")
        return 0
