"""Weights & Biases: the run's rows, sample tables, report and manifests, online with a key and offline without one."""

from __future__ import annotations

import math
import netrc
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

import hookline
from hookline import Component, Run, hookimpl
from hookline_plugins.trackers.wandb_columns import columns, commit

FIXED = {
    "console": "off",
    "silent": True,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "use_dot_wandb": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
"""Only data of the run itself is sent: no code, diff or console output."""
ENVIRONMENT = {
    "project": "WANDB_PROJECT", "entity": "WANDB_ENTITY", "group": "WANDB_RUN_GROUP", "name": "WANDB_NAME",
    "job_type": "WANDB_JOB_TYPE", "notes": "WANDB_NOTES", "tags": "WANDB_TAGS",
}  # fmt: skip
"""Options that the environment chooses where the experiment does not."""
AXES = ("train/global_step", "train/tokens", "train/seconds")
"""What every row is counted in besides its phase's steps: rows, tokens and seconds of the whole run so far."""


class WandB(Component):
    """One W&B step per committed row, figures named `PHASE/FIGURE`, drawn over `PHASE/step`; `train/global_step`, `train/tokens`
    and `train/seconds` are other axes.

    The experiment is in the config under the paths of overrides, e.g. `phases.rl.update.lr`. What the experiment says comes
    before W&B's environment variables (WANDB_PROJECT, WANDB_NAME, …), and these before the defaults. A run that the process has
    already begun with `wandb.init`, as in a function that `wandb.agent` calls, is used and left open.

    Without a key (WANDB_API_KEY, or a login in ~/.netrc) the run is written offline into RUN/wandb, and `wandb sync`
    sends it later. After a resume the id stays the same. Offline, the files of an earlier process are replaced by one run
    with every row; online, only rows that W&B does not have are sent. W&B never stops a run and never prompts for input.
    """

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            "wandb_project": "project", "project_name": "project", "wandb_entity": "entity", "wandb_org": "entity",
            "run_name": "name", "wandb_run_name": "name", "wandb_name": "name", "experiment_name": "name",
            "wandb_group": "group", "wandb_mode": "mode", "log_model": "model", "wandb_log_model": "model",
        }  # fmt: skip
        project: str | None = Field(None, min_length=1)
        """W&B project; default: WANDB_PROJECT, or hookline."""
        entity: str | None = None
        """User or team; default: WANDB_ENTITY, or the default entity of the key's owner."""
        group: str | None = None
        """Runs of the same group are averaged together in charts; default: WANDB_RUN_GROUP, or all runs of a sweep."""
        name: str | None = None
        """The run's name; default: WANDB_NAME, or that of its directory."""
        job_type: str | None = None
        """What kind of run it is; default: WANDB_JOB_TYPE, or train."""
        notes: str | None = None
        """A longer text about the run; default: WANDB_NOTES."""
        tags: tuple[str, ...] | None = None
        """Tags of the run, for searching; default: WANDB_TAGS, with commas between."""
        mode: Literal["auto", "online", "offline"] = "auto"
        """`auto`: online if there is a key, otherwise offline. The environment variable WANDB_MODE overrides `auto`."""
        system: bool = True
        """Send use of processor, memory and GPU, in W&B's system charts."""
        samples: int = Field(64, ge=0)
        """Rows per sample table (prompt, answer, reward terms), one table per evaluation; 0 sends none, of training either."""
        model: Literal["none", "end", "best"] | None = None
        """The model as an artifact, exported as a transformers folder when the run has finished: that of the last phase, or its best
        one (`save.best`). Default: none, or what WANDB_LOG_MODEL says."""
        alerts: bool = False
        """Let W&B send a message when the run finishes or fails."""
        timeout: float = Field(30.0, gt=0)
        """Seconds to wait for W&B at the start, before going offline, and at the end. Small avoids delays."""

    def __init__(self, config: hookline.Config) -> None:
        super().__init__(config)
        self.tables: dict[str, Any] = {}
        self.answers: list[Mapping[str, Any]] = []
        self.growing: dict[str, Any] = {}
        """Phase → the table of training answers, which grows."""
        self.counted = {"tokens": 0.0, "seconds": 0.0}
        self.first = 0
        """W&B's step at the run's first row: 0, unless somebody else has logged before."""
        self.adopted = False
        self.defined: set[str] = set()
        self.wandb: Any = None

    @hookimpl
    def hookline_run_started(self, run: Run) -> None:
        mode = self._mode()
        if mode == "disabled":
            return
        self.run = run
        begun = getattr(sys.modules.get("wandb"), "run", None)
        if begun is not None:
            self.wandb, self.adopted, self.first = begun, True, begun.step
            self.mode = "offline" if begun.offline else "online"
            begun.config.update(self._described(), allow_val_change=True)
            self._define_axes()
            self._catch_up(run)
            return
        if mode == "online" and not has_key():
            run.notice("W&B has no key (wandb login, or WANDB_API_KEY), so the run is written offline")
            mode = "offline"
        if mode == "online":
            try:
                self.wandb = self._begin(run, "online")
            except Exception as err:
                why = " ".join(str(err).split())
                run.notice(f"W&B cannot be reached, so the run is written offline ({type(err).__name__}: {why})")
                self._let_go()
                mode = "offline"
        if mode == "offline":
            self._forget_offline(run)
            self.wandb = self._begin(run, "offline")
        else:
            self._forget_offline(run)
            run.notice(f"W&B: {self.wandb.url}")
        self.mode = mode
        self._catch_up(run)

    @hookimpl
    def hookline_samples(self, phase: str, name: str, samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the samples until the step's row is committed, so that the row is one W&B step."""
        self.tables[f"{phase}/samples/{name}"] = samples

    @hookimpl
    def hookline_completions(self, completions: Sequence[Mapping[str, Any]]) -> None:
        self.answers = [*completions]

    @hookimpl
    def hookline_row(self, row: Mapping[str, Any]) -> None:
        tables, self.tables, answers, self.answers = self.tables, {}, self.answers, []
        if self.wandb is not None:
            self._log(row, tables, answers)

    @hookimpl
    def hookline_run_finished(self, run: Run, status: str) -> None:
        if self.wandb is None:
            return
        try:
            self.wandb.config.update({"about": hidden(run.about)}, allow_val_change=True)
            if status == "finished":
                with self._staging():
                    self._artifacts(run)
            if self.config.alerts and status != "stopped":
                self.wandb.alert(f"{run.directory.name} {status}", f"{len(run.rows())} steps; {run.directory}")
        finally:
            if not self.adopted:
                self.wandb.finish(exit_code=0 if status == "finished" else 1)
        if self.mode == "offline":
            run.notice(f"W&B was written offline; to send it: wandb sync {Path(self.wandb.settings.sync_dir)}")

    # -- parts

    def _mode(self) -> str:
        """`online`, `offline` or `disabled`."""
        wished = str(self.config.mode)
        if wished == "auto" and os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on"):
            return "disabled"
        if wished == "auto":
            wished = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        return {"dryrun": "offline", "run": "online"}.get(wished, wished)

    def _wish(self, option: str, default: Any = None) -> Any:
        """What the experiment says, or else the environment, or else the default."""
        said = getattr(self.config, option)
        if said is not None:
            return said
        found = os.environ.get(ENVIRONMENT[option]) or default
        return (
            tuple(tag.strip() for tag in found.split(",") if tag.strip())
            if option == "tags" and isinstance(found, str)
            else found
        )

    def _begin(self, run: Run, mode: Any) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        wishes = {
            **FIXED,
            "init_timeout": self.config.timeout,
            "finish_timeout": self.config.timeout,
            "x_disable_stats": not self.config.system,
        }
        known = wandb.Settings.model_fields
        self.run, self.defined = run, set()
        self.wandb = wandb.init(
            id=self._id(run),
            name=self._wish("name", run.directory.name),
            project=self._wish("project", "hookline"),
            entity=self._wish("entity"),
            group=self._wish("group", run.about.get("group")),
            job_type=self._wish("job_type", "train"),
            notes=self._wish("notes"),
            tags=self._wish("tags"),
            dir=os.path.abspath(os.environ.get("WANDB_DIR") or run.directory),  # another process may write it
            config=self._described(),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**{name: value for name, value in wishes.items() if name in known}),
        )
        self._define_axes()
        return self.wandb

    def _id(self, run: Run) -> str:
        """The run's id; the agent of a W&B sweep chooses it, and a resume without the agent keeps it."""
        kept = run.directory / "wandb" / "run-id"
        if kept.exists():
            return kept.read_text(encoding="utf-8").strip()
        chosen = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        if chosen:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(chosen, encoding="utf-8")
        return chosen or run.id

    def _described(self) -> dict[str, Any]:
        found = {**columns(self.run), **commit(self.run.experiment.get("folder") or "."), "about": self.run.about}
        blotted: dict[str, Any] = hidden(found)
        return blotted

    def _define_axes(self) -> None:
        for axis in AXES:
            self.wandb.define_metric(axis)
        for phase in (spec["name"] for spec in self.run.experiment["phases"]):
            self.wandb.define_metric(f"{phase}/step", hidden=True)
            self.wandb.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    def _define(self, phase: str, names: Iterable[str]) -> None:
        """Let the summary have the best value beside the last one, of figures that say which values are better."""
        for name in names:
            figure = f"{phase}/{name}"
            if figure not in self.defined:
                self.defined.add(figure)
                better = getattr(self.run.metric(phase, name), "better", None)
                if better in ("higher", "lower"):
                    best = "max" if better == "higher" else "min"
                    self.wandb.define_metric(figure, step_metric=f"{phase}/step", summary=f"{best},last")

    def _let_go(self) -> None:
        """End W&B's service, which still uses the run's id after a failed start."""
        import wandb

        wandb.teardown()

    def _forget_offline(self, run: Run) -> None:
        """Delete the offline files of an earlier process of this run; all rows are written again from the run itself."""
        home = Path(os.environ.get("WANDB_DIR") or run.directory)
        for stale in (home / "wandb").glob(f"offline-run-*-{self._id(run)}"):
            shutil.rmtree(stale)

    def _catch_up(self, run: Run) -> None:
        """Log the rows that W&B does not have: offline all rows, online the rows after W&B's last row."""
        evaluations: dict[int, dict[str, Any]] = {}
        for entry in run.evaluations():
            key = f"{entry['phase']}/samples/{entry['name']}"
            evaluations.setdefault(entry["row"], {})[key] = entry["samples"]
        answers: dict[int, list[Mapping[str, Any]]] = {}
        for answer in run.completions():
            answers.setdefault(answer["row"], []).append(answer)
        for row in run.rows():
            self._log(row, evaluations.get(row["row"], {}), answers.get(row["row"], []))

    def _log(self, row: Mapping[str, Any], tables: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> None:
        """Log a row in one call. A row that W&B already had before a kill is not logged twice."""
        phase, step = row["phase"], self.first + row["row"]
        self.counted["tokens"] += row["metrics"].get("tokens") or 0
        self.counted["seconds"] += sum(value for name, value in row["timings"].items() if name.startswith("seconds/"))
        if step < self.wandb.step:
            return
        figures = {**row["metrics"], **row["timings"]}
        self._define(phase, row["metrics"])
        axes = dict(zip(AXES, (row["row"] + 1, *self.counted.values())))
        shown = {key: self._table(samples) for key, samples in tables.items() if self.config.samples}
        if answers and self.config.samples:
            shown[f"{phase}/completions"] = self._grown(phase, answers)
        named = {f"{phase}/{name}": value for name, value in figures.items()}
        with self._staging():
            self.wandb.log({f"{phase}/step": row["step"], **axes, **named, **shown}, step=step, commit=True)
        self._keep_best(phase, row["metrics"])

    def _keep_best(self, phase: str, metrics: Mapping[str, float]) -> None:
        """The best value so far of the figure that `save.best` names, as `best/PHASE/FIGURE` of the summary."""
        spec = next(spec for spec in self.run.experiment["phases"] if spec["name"] == phase)
        best: Mapping[str, Any] = (spec.get("save") or {}).get("best") or {}
        value = metrics.get(best.get("figure", ""))
        if value is None or not math.isfinite(value):
            return
        name, sign = f"best/{phase}/{best['figure']}", -1 if best.get("lowest") else 1
        before = self.wandb.summary.get(name)
        if before is None or sign * value > sign * before:
            self.wandb.summary[name] = value

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """Files on their way to W&B lie in the run's own folder, not the user's home, so that a moved run still syncs."""
        before = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = str(self.wandb.settings.sync_dir)
        try:
            yield
        finally:
            os.environ.pop("WANDB_DATA_DIR")
            if before is not None:
                os.environ["WANDB_DATA_DIR"] = before

    def _table(self, samples: Sequence[Mapping[str, Any]]) -> Any:
        import wandb

        names = list(dict.fromkeys(name for sample in samples for name in sample["terms"]))
        rows = [
            [s["prompt"], s["response"], *(s["terms"].get(n) for n in names)] for s in samples[: self.config.samples]
        ]
        return wandb.Table(columns=["prompt", "response", *names], data=rows)

    def _grown(self, phase: str, answers: Sequence[Mapping[str, Any]]) -> Any:
        """The phase's table of training answers with these below: step, prompt, completion, rewards, advantage."""
        import wandb

        if phase not in self.growing:
            names = [name for name in answers[0] if name not in ("row", "phase", "stretches")]
            self.growing[phase] = wandb.Table(columns=names, log_mode="INCREMENTAL")
        table = self.growing[phase]
        for answer in answers:
            table.add_data(*(answer.get(name) for name in table.columns))
        return table

    def _artifacts(self, run: Run) -> None:
        """The report, the manifest of each phase with the hashes of its weights and data, and the model where it is asked for."""
        import wandb

        report = [path for path in (run.directory / "report.html", run.directory / "report.json") if path.exists()]
        manifests = sorted((run.directory / "phases").glob("*/manifest.json"))
        for kind, files in (("report", report), ("manifest", manifests)):
            if not files:
                continue
            artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
            for path in files:
                artifact.add_file(str(path), name=path.relative_to(run.directory).as_posix(), policy="immutable")
            self.wandb.log_artifact(artifact)
        wished = self.config.model or {"end": "end", "true": "end", "1": "end", "checkpoint": "best"}.get(
            os.environ.get("WANDB_LOG_MODEL", "").lower(), "none"
        )
        phases = [spec for spec in run.experiment["phases"] if (run.phase_folder(spec["name"]) / "model").is_dir()]
        if wished != "none" and phases:
            best = wished == "best" and bool((phases[-1].get("save") or {}).get("best"))
            place = Path(self.wandb.settings.sync_dir) / "model"
            folder = hookline.export(run.directory, place, phases[-1]["name"], best=best)
            artifact = wandb.Artifact(f"model-{run.id}", type="model")
            artifact.add_dir(str(folder), policy="immutable")
            self.wandb.log_artifact(artifact, aliases=["latest", "best" if best else "end"])


def has_key() -> bool:
    """Whether W&B has credentials here: the environment, or a login in the netrc file. None is read further."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = os.environ.get("WANDB_BASE_URL") or str(wandb.Settings.model_fields["base_url"].default)
    hosts = (urlsplit(server).netloc, "api.wandb.ai")
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            logins = netrc.netrc(path)
        except (OSError, netrc.NetrcParseError):
            continue
        if any(host in logins.hosts for host in hosts):
            return True
    return False


def hidden(value: Any) -> Any:
    """The same config with the key, should somebody have written it there, blotted out."""
    key = os.environ.get("WANDB_API_KEY")
    if isinstance(value, Mapping):
        return {name: hidden(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(item) for item in value]
    return value.replace(key, "(hidden)") if key and isinstance(value, str) else value
