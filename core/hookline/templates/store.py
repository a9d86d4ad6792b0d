"""NAME: a store for Hookline. It opens files called `FILE.NAME`.

This one has a rule of its own, and leaves the keeping to an SQLite file, which does what a store must promise.
"""

import hookline
from hookline import DataError, Store
from pydantic import Field


class Example(Store):
    """Refuses answers that were given too quickly."""

    suffixes = (".NAME",)

    class Config(hookline.Config):
        url: str
        """The file."""
        least: float = Field(0.5, ge=0)
        """The shortest time, in seconds, in which an answer can be given. Large refuses people who read fast, too."""

    inner = None

    def open(self, *, create=True):
        self.inner = hookline.store(f"sqlite:///{self.config.url}", create=create)

    def close(self):
        if self.inner:
            self.inner.close()

    def append(self, events):
        events = list(events)
        for event in events:
            if event.seconds is not None and event.seconds < self.config.least:
                raise DataError(f"'{event.annotator}' answered after {event.seconds} s", "read the answers first")
        return self.inner.append(events)

    def put(self, items):
        return self.inner.put(items)

    def lease(self, annotator, *, seconds=900.0, beside=()):
        return self.inner.lease(annotator, seconds=seconds, beside=beside)

    def leased(self, annotator):
        return self.inner.leased(annotator)

    def items(self):
        return self.inner.items()

    def events(self, *, annotator=None):
        return self.inner.events(annotator=annotator)

    def counts(self):
        return self.inner.counts()

    def forget(self, annotator):
        return self.inner.forget(annotator)

    def verify(self):
        return self.inner.verify()

    def backup(self, path):
        self.inner.backup(path)
