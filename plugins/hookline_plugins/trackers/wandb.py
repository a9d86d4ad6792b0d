"""Weights & Biases: the run's rows, sample tables, report and manifests, online with a key and offline without one."""

from __future__ import annotations

import netrc
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

import hookline
from hookline import Component, Run, hookimpl

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
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Only data of the run itself is sent: no code, diff, console output, or system figures."""


class WandB(Component):
    """One W&B step per committed row, figures named `PHASE/FIGURE`, drawn over `PHASE/step`.

    Without a key (WANDB_API_KEY, or a login in ~/.netrc) the run is written offline into RUN/wandb, and `wandb sync`
    sends it later. After a resume the id stays the same. Offline, the files of an earlier process are replaced by one run
    with every row; online, only rows that W&B does not have are sent. W&B never stops a run and never prompts for input.
    """

    class Config(hookline.Config):
        project: str = Field("hookline", min_length=1)
        """W&B project."""
        entity: str | None = None
        """User or team; none: the default entity of the key's owner."""
        group: str | None = None
        """Runs of the same group are averaged together in charts; default in a sweep: all of its runs are one group."""
        tags: tuple[str, ...] = ()
        """Tags of the run, for searching."""
        mode: Literal["auto", "online", "offline"] = "auto"
        """`auto`: online if there is a key, otherwise offline. The environment variable WANDB_MODE overrides `auto`."""
        samples: int = Field(64, ge=0)
        """Rows per sample table (prompt, answer, reward terms), one table per evaluation; 0 sends none."""
        timeout: float = Field(30.0, gt=0)
        """Seconds to wait for W&B at the start, before going offline, and at the end. Small avoids delays."""

    def __init__(self, config: hookline.Config) -> None:
        super().__init__(config)
        self.tables: dict[str, Any] = {}
        self.wandb: Any = None

    @hookimpl
    def hookline_run_started(self, run: Run) -> None:
        mode = self._mode()
        if mode == "disabled":
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
    def hookline_row(self, row: Mapping[str, Any]) -> None:
        tables, self.tables = self.tables, {}
        if self.wandb is not None:
            self._log(row, tables)

    @hookimpl
    def hookline_run_finished(self, run: Run, status: str) -> None:
        if self.wandb is None:
            return
        try:
            self.wandb.config.update({"about": hidden(run.about)}, allow_val_change=True)
            if status == "finished":
                with self._staging():
                    self._artifacts(run)
        finally:
            self.wandb.finish(exit_code=0 if status == "finished" else 1)
        if self.mode == "offline":
            run.notice(f"W&B was written offline; to send it: wandb sync {Path(self.wandb.settings.sync_dir)}")

    # -- parts

    def _mode(self) -> str:
        """`online`, `offline` or `disabled`."""
        wished = str(self.config.mode)
        if wished == "auto":
            wished = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        return {"dryrun": "offline", "run": "online"}.get(wished, wished)

    def _begin(self, run: Run, mode: Any) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        wishes = {**FIXED, "init_timeout": self.config.timeout, "finish_timeout": self.config.timeout}
        known = wandb.Settings.model_fields
        begun = wandb.init(
            id=run.id,
            name=run.directory.name,
            project=self.config.project,
            entity=self.config.entity,
            group=self.config.group or run.about.get("group"),
            tags=self.config.tags,
            dir=str(run.directory),
            config=hidden({**run.experiment, "about": run.about}),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**{name: value for name, value in wishes.items() if name in known}),
        )
        for phase in (spec["name"] for spec in run.experiment["phases"]):
            begun.define_metric(f"{phase}/step", hidden=True)
            begun.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
        return begun

    def _let_go(self) -> None:
        """End W&B's service, which still uses the run's id after a failed start."""
        import wandb

        wandb.teardown()

    def _forget_offline(self, run: Run) -> None:
        """Delete the offline files of an earlier process of this run; all rows are written again from the run itself."""
        for stale in (run.directory / "wandb").glob(f"offline-run-*-{run.id}"):
            shutil.rmtree(stale)

    def _catch_up(self, run: Run) -> None:
        """Log the rows that W&B does not have: offline all rows, online the rows after W&B's last row."""
        evaluations: dict[int, dict[str, Any]] = {}
        for entry in run.evaluations():
            key = f"{entry['phase']}/samples/{entry['name']}"
            evaluations.setdefault(entry["row"], {})[key] = entry["samples"]
        for row in run.rows():
            self._log(row, evaluations.get(row["row"], {}))

    def _log(self, row: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
        """Log a row in one call. A row that W&B already had before a kill is not logged twice."""
        if row["row"] < self.wandb.step:
            return
        phase = row["phase"]
        figures = {f"{phase}/{name}": value for name, value in {**row["metrics"], **row["timings"]}.items()}
        shown = {key: self._table(samples) for key, samples in tables.items() if self.config.samples}
        with self._staging():
            self.wandb.log({f"{phase}/step": row["step"], **figures, **shown}, step=row["row"], commit=True)

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

    def _artifacts(self, run: Run) -> None:
        """The report, and the manifest of each phase: hashes of weights and data, the last one of the final model."""
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
