"""A run is a directory with the resolved experiment, its environment, rows, journal, checkpoints and finished
phases."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hookline.config.experiment import Experiment, completed
from hookline.contract.metrics import Metric
from hookline.data.rows import Rows
from hookline.data.sources import Catalogue
from hookline.errors import CheckpointError, DataError
from hookline.registry.copies import FUNCTIONS, MEMORY, PLUGINS, copy_code, copy_rows, refuse_other_functions
from hookline.registry.offers import Offer
from hookline.runs import longer
from hookline.runs.directory import COLLECTED, Directory, about_of, json_of
from hookline.runs.figures import Figures
from hookline.runs.ledger import COMPLETIONS, Ledger
from hookline.runs.outlook import Outlook
from hookline.runs.shown import page_of
from hookline.runs.surroundings import Surroundings, experiment_changes, experiment_hash
from hookline.storage.folders import take_lock, write_error
from hookline.storage.journal import Journal
from hookline.storage.lines import cut_torn_line
from hookline.storage.paths import expanded
from hookline.world.world import World

__all__ = ["Run"]

SEEN = 30.0
"""Seconds within which a shared file system shows what another machine wrote."""


def _print(notice: str) -> None:
    print(f"note: {notice}", file=sys.stderr, flush=True)


class Run(Directory):
    """One run on disk: open for writing while it holds the directory's lock, otherwise read-only."""

    def __init__(
        self,
        directory: Path,
        loose: Sequence[Offer] = (),
        say: Callable[[str], None] = _print,
        world: World | None = None,
    ) -> None:
        super().__init__(directory, world or World())
        self.catalogue = Catalogue(tuple(loose))
        """Where data names lead, and the loose plugins."""
        self.figures: Figures | None = None
        """The meaning of the figures; set by the loop that logs them."""
        self.outlook: Outlook | None = None
        """The estimate of the remaining time; set by the loop that runs the phases."""
        self.about: dict[str, Any] = {}
        """Everything that the run depends on, as stored in run.json: versions, hashes of code and data, plugins."""
        self.resumed: bool = False  # True if the directory already held this run.
        self.journal: Journal  # The answers that `ctx.once` and `ctx.each` have stored.
        self._notices: list[str] = []
        self._say = say
        self.ledger = Ledger(directory, self.world.leads)
        """The rows, evaluations and completions on disk."""
        self._data: dict[str, Rows] = {}
        self._data_kept = True
        self._lock: Any = None
        self._open = False
        self._used: Sequence[Offer] = ()
        self._shared = 0
        """The notices of which rank 0 knows."""

    # -- opening

    @classmethod
    def open(
        cls,
        directory: Path,
        experiment: Experiment,
        *,
        loose: Sequence[Offer] = (),
        used: Sequence[Offer] = (),
        say: Callable[[str], None] = _print,
        world: World | None = None,
    ) -> Run:
        """Start a run in an empty or new directory, or continue the run of an existing directory.

        loose: plugins that are files; they are copied into the directory. used: all components that the experiment
        names; their code is hashed. say: prints a notice. world: the processes that open it together. Raises
        CheckpointError if the directory is in use, cannot be written, or contains other files.
        """
        world = world or World()
        now = Surroundings.now(used, experiment.threads, experiment.device, world)
        now.refuse_others(world, experiment_hash(experiment.resolved()))
        run = cls(directory, loose, say, world)
        run._used = used
        run.catalogue = Catalogue(tuple(loose), experiment.data, experiment.folder)
        if world.leads:
            run._take(experiment, now)
        try:
            opened = world.gather((run.about, run.resumed), "the run's directory")[0]
            if not world.leads:
                run._join(*opened)
            run.journal = Journal(run.journal_of(world.rank), run.journals(world.rank))
            world.gather(None, "the run's journals")  # nobody writes before all have read
        except BaseException:
            run.close()
            raise
        return run

    def _take(self, experiment: Experiment, now: Surroundings) -> None:
        """Lock the directory, and start or continue its run."""
        directory = self.directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock, self._open = take_lock(directory), True
            probe = directory / ".probe"
            probe.write_text("")
            probe.unlink()
            for journal in self.journals():
                cut_torn_line(journal)
        except (OSError, ValueError) as err:
            self.close()
            why = "it is a file" if isinstance(err, FileExistsError) else getattr(err, "strerror", None) or err
            raise CheckpointError(f"{directory} cannot be written: {why}", "choose another with --out") from None
        try:
            if (directory / "run.json").exists():
                self._resume(experiment, now)
            else:
                self._refuse_strangers()
                self._begin(experiment, now)
        except BaseException:
            self.close()
            raise

    def _join(self, about: dict[str, Any], resumed: bool) -> None:
        """Take part in the run that rank 0 has opened. Raises CheckpointError if its directory is not seen here."""
        self.about, self.resumed, self._open = about, resumed, True
        until = time.monotonic() + SEEN
        while not self.is_one(self.directory) or about_of(self.directory)["id"] != self.id:
            if time.monotonic() > until:
                raise CheckpointError(
                    f"{self.directory} of rank 0 is not seen on {platform.node()}",
                    "put --out on a file system that all machines share",
                )
            time.sleep(0.1)

    def _refuse_strangers(self) -> None:
        ours = {"lock", "experiment.json", ".experiment.json.aside", ".run.json.aside", PLUGINS, FUNCTIONS, MEMORY}
        strangers = sorted(p.name for p in self.directory.iterdir() if p.name not in ours)
        if strangers:
            raise CheckpointError(
                f"{self.directory} is not empty and is not a Hookline run directory (it contains {strangers[0]}, …)",
                "choose another with --out",
            )

    def _begin(self, experiment: Experiment, now: Surroundings) -> None:
        """Begin a new run, in a directory that is empty or was left behind by a failed start."""
        resolved, begun = experiment.resolved(), datetime.now().isoformat(timespec="seconds")
        about = {"id": uuid.uuid4().hex[:8], "experiment_sha256": experiment_hash(resolved), "clock": begun}
        self.about = {**about, **now.values, "data": {}}
        self.write("experiment.json", resolved)
        copy_code(self.directory, self.catalogue.loose, self._used)
        copy_rows(self.directory, resolved)
        self.write("run.json", self.about)

    def holds_nothing(self) -> bool:
        """True if no step was taken in this directory, so that nothing depends on the data or options of the first
        start; the answers of a first step that failed do not count."""
        results = [path for path in self.ledger.paths if path.name != COMPLETIONS]
        return not any(
            (self.directory / name).exists() for name in ("checkpoints", "phases", "best", "collecting")
        ) and (not any(path.exists() and path.stat().st_size for path in (*results, *self.journals())))

    @classmethod
    def read(cls, directory: str | Path) -> Run:
        """Open a run for reading, without the lock. Raises CheckpointError if the directory is not a run directory."""
        path = expanded(Path(directory))
        if not cls.is_one(path):
            raise CheckpointError(
                f"{directory} is not a run directory: it contains no run.json",
                "give the folder that `hookline run` printed",
            )
        run = cls(path)
        run.journal = Journal(run.journal_of(0), run.journals(0))
        run.about = about_of(path)
        run.ledger.read()
        return run

    @property
    def locked(self) -> bool:
        """True if this process, or rank 0 for it, holds the directory's lock."""
        return self._open

    def close(self) -> None:
        """Release the directory's lock; the run can still be read."""
        self._open = False
        if self._lock:
            self._lock.close()
            self._lock = None

    def _resume(self, experiment: Experiment, now: Surroundings) -> None:
        self.about = about_of(self.directory)
        digest = experiment_hash(json_of(self.directory / "experiment.json"))
        self._data_kept = not longer.undone(self.about, digest)
        changed = experiment_changes(self.experiment, experiment.resolved())
        steps = longer.step_changes(self.experiment, experiment.resolved())
        if self.holds_nothing():
            for name in ("tokenizer", PLUGINS):  # not the functions, whose copies may be all that is left
                shutil.rmtree(self.directory / name, ignore_errors=True)
            self._begin(experiment, now)
            return
        if len(changed) > len(steps):
            shown = "; ".join(changed[:8]) + (f"; and {len(changed) - 8} more" if len(changed) > 8 else "")
            raise CheckpointError(
                f"{self.directory} holds a run of another experiment: {shown}",
                "undo the change to continue that run, or start a new run with --out",
            )
        refuse_other_functions(self.directory, self._used)
        if steps:
            self._lengthen(experiment.resolved(), steps, digest)
        differing = now.differences(self.about)
        if differing:
            self.notice(f"not bit-identical to the run so far, because of {'; '.join(differing.values())}")
            self.about["resumed_with"] = self.about.get("resumed_with", {}) | differing
            self._data_kept = False  # written with the next row, so that only reading a run does not change it
        self.resumed = True

    def _lengthen(self, resolved: dict[str, Any], steps: Mapping[str, tuple[int, int]], digest: str) -> None:
        """Give phases other numbers of steps: first in run.json, then in experiment.json, so that a kill between the two shows.

        digest: the hash of experiment.json until now. The old end of a phase stays in phases/ until the new one replaces it.
        """
        found = longer.lengthened(self, self.ledger, steps, [phase["name"] for phase in resolved["phases"]])
        self.note(
            experiment_sha256=experiment_hash(resolved),
            lengthened=[*self.about.get("lengthened", ()), *({**change, "experiment_sha256": digest} for change in found)],
            ended=[name for name in self.about.get("ended", ()) if name not in steps],
        )
        self.write("experiment.json", resolved)
        for change in found:
            self.notice(longer.notice_of(change))

    def note(self, **facts: Any) -> None:
        """Write facts about this run into run.json, e.g. `group`: which runs it belongs to; trackers may show them."""
        if any(self.about.get(key) != value for key, value in facts.items()):
            self.about |= facts
            self.write("run.json", self.about)

    def _repr_html_(self) -> str:
        """The run as a notebook shows it."""
        return page_of(self.name, self.directory, self.rows(), self.evaluations())

    @property
    def id(self) -> str:
        """The id of the run: eight hex digits, unchanged by a resume."""
        return str(self.about["id"])

    @property
    def name(self) -> str:
        """The experiment's name."""
        return str(json_of(self.directory / "experiment.json")["name"])

    @property
    def experiment(self) -> dict[str, Any]:
        """The resolved experiment."""
        return completed(json_of(self.directory / "experiment.json"))

    # -- data

    def data(self, name: str, path: str | None = None) -> Rows:
        """The rows of a data name, read once. Raises CheckpointError if they are not those that the run began with."""
        if name not in self._data:
            rows = self.catalogue.rows(name) if path is None else Catalogue().rows(path)
            known = self.about.setdefault("data", {}).get(name)
            if known is None:
                self.about["data"][name] = {"rows": len(rows), "sha256": rows.sha256}
                self._data_kept = False
            elif known["sha256"] != rows.sha256:
                raise CheckpointError(
                    f"{name} is not the data this run began with: {known['rows']} rows then, {len(rows)} now, contents differ",
                    "restore the file, or start a new run with --out",
                )
            self._data[name] = rows
        return self._data[name]

    def pin(self, name: str, sha256: str) -> None:
        """Record the hash of something outside the run. Raises CheckpointError if another hash was recorded before."""
        known = self.about.setdefault("data", {}).setdefault(name, {"rows": 0, "sha256": sha256})
        if known["sha256"] != sha256:
            raise CheckpointError(f"{name} has changed since this run began", "restore it, or start a new run with --out")
        self._data_kept = False

    def keep_data(self) -> None:
        """Write the hashes of the data before the first result that depends on it; until then, the data may be
        corrected."""
        if not self._data_kept and self._open:
            self.write("run.json", self.about)
            self._data_kept = True

    def collected(self, phase: str) -> Rows:
        """The judgements that a finished phase collected. Raises DataError if there are none."""
        if not self.has_collected(phase):
            raise DataError(f"phase '{phase}' collected no judgements", "name a phase with `feedback`")
        return self.data(f"phase:{phase}", str(self.phase_folder(phase) / COLLECTED))

    # -- rows and samples

    def rows(self) -> list[dict[str, Any]]:
        """Every committed row, oldest first: {"row", "phase", "step", "metrics", "timings"}. A figure that is not finite
        is `null` in metrics.jsonl, and NaN here once the file was read."""
        return list(self.ledger.rows)

    def commit_row(
        self, phase: str, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]
    ) -> dict[str, Any]:
        """Append a step's row to metrics.jsonl, and return the row."""
        self.keep_data()
        number = len(self.ledger.rows)
        row = {"row": number, "phase": phase, "step": step, "metrics": dict(metrics), "timings": dict(timings)}
        self.ledger.add_row(row)
        return row

    def commit_samples(self, phase: str, step: int, name: str, samples: Sequence[Mapping[str, Any]]) -> None:
        """Append an evaluation's samples to evaluations.jsonl."""
        number = len(self.ledger.rows)
        self.ledger.add_evaluation({"row": number, "phase": phase, "step": step, "name": name, "samples": list(samples)})

    def evaluations(self) -> list[dict[str, Any]]:
        """Every evaluation: {"row", "phase", "step", "name", "samples"}."""
        return self.ledger.evaluations()

    def commit_completions(
        self, phase: str, step: int, completions: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Append answers of a training step to completions.jsonl, and return them as they are there."""
        place = {"row": len(self.ledger.rows), "phase": phase, "step": step}
        entries = [{**place, **completion} for completion in completions]
        for entry in entries:
            self.ledger.add_completion(entry)
        return entries

    def completions(self) -> list[dict[str, Any]]:
        """Every kept answer of training, oldest first; see `hookline_completions` of trackers."""
        return self.ledger.completions()

    def cut_back(self, rows: int, written: Mapping[str, str] | None = None) -> None:
        """Remove rows, evaluations and completions after a save, as `Ledger.cut_back` does."""
        self.world.main(lambda: self.ledger.cut_back(rows, written), "cutting rows back")
        if not self.world.leads:
            self.ledger.read()

    def sync(self) -> None:
        """Flush rows to the disk, before a checkpoint that depends on them is written."""
        for path in (*self.ledger.paths, *self.collections()):
            if self.world.leads and path.exists():
                try:
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                except OSError as err:
                    raise write_error(path, err) from err

    # -- notices and figures

    def share_notices(self) -> None:
        """Let rank 0 print what only other ranks had to say."""
        _, *others = self.world.gather(self._notices[self._shared :], "the step's notices")
        for rank, some in enumerate(others, 1):
            for text in some:
                if self.world.leads and text not in self._notices:
                    self.notice(f"rank {rank}: {text}")
        self._shared = len(self._notices)

    @property
    def notices(self) -> Sequence[str]:
        """The notices that were printed so far."""
        return tuple(self._notices)

    def notice(self, text: str) -> None:
        """Print a one-line notice, and add it to `notices`."""
        self._notices.append(text)
        if self.world.leads:
            self._say(text)

    def seconds_left(self) -> dict[str, float]:
        """Phase → estimated seconds left, from the steps so far or from an earlier run in the same parent directory.

        0 for a phase that has ended; empty before the run's first step, and for a run that is only read.
        """
        return self.outlook.seconds_left(self.ledger.rows) if self.outlook else {}

    def metric(self, phase: str, name: str) -> Metric | None:
        """The meaning of a logged figure, as declared by the core or a component of the phase; None if it is not
        declared."""
        return self.figures.find(phase, name) if self.figures else None
