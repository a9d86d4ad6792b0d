"""Hookline: RLHF experiments as four hooks, rollout → reward → advantage → update. Everything else is a plugin.

Names are imported when first used, so that `import hookline` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline._version import __version__

_HOMES = {
    "hookline.batch.columns": ("pad_rows", "put_last", "read_last"),
    "hookline.batch.encoded": ("Encoded",),
    "hookline.batch.join": ("concat", "pairs"),
    "hookline.batch.stages": (
        "Advantaged", "Batch", "Behaviour", "Record", "Rollout", "Sampling", "Scored", "KeptIds", "Term",
    ),
    "hookline.config.objects": ("use",),
    "hookline.config.typed": ("Evaluation", "Experiment", "Model", "Phase"),
    "hookline.contract.command": ("Argument", "Command", "Out"),
    "hookline.contract.component": ("Component",),
    "hookline.contract.engine": ("Completion", "Completions", "Engine", "Request"),
    "hookline.contract.environment": ("Environment", "Turn"),
    "hookline.contract.family": ("Decoding", "Family"),
    "hookline.contract.feedback": (
        "Candidate", "Comment", "Comparison", "Correction", "Event", "Producer",
        "Ranking", "Rating", "Skip", "Span", "Spans", "Thumb",
    ),
    "hookline.contract.fields": (
        "CodePath", "Config", "DataName", "LocalPath", "ModelPath",
        "PhaseName", "StoreName", "UpdateConfig", "Use", "instance_name",
    ),
    "hookline.contract.event_format": ("EventFormat",),
    "hookline.contract.format": ("Format",),
    "hookline.contract.context": ("Context", "NextToken"),
    "hookline.contract.encoder": ("Encoder", "Overlong"),
    "hookline.contract.hookspecs": ("HOOK_API", "hookimpl"),
    "hookline.contract.judgement": ("Judgement",),
    "hookline.contract.loss": ("Loss", "MicroBatch", "Stats"),
    "hookline.contract.metrics": ("Metric", "figure_name"),
    "hookline.contract.model": ("Adapter", "Architecture", "Head", "Vocabulary"),
    "hookline.contract.process": ("Process", "State"),
    "hookline.contract.settled": ("newest", "settled", "settled_rows"),
    "hookline.contract.store": ("Counts", "Item", "Store", "Verified"),
    "hookline.contract.task": ("Task",),
    "hookline.data.judged": ("as_row",),
    "hookline.data.messages": ("prompt_messages",),
    "hookline.data.stores": ("store",),
    "hookline.data.tasks": ("task",),
    "hookline.tokens.tokenizer": ("Tokenizer",),
    "hookline.errors": (
        "CheckpointError", "DataError", "ExperimentError", "HooklineError",
        "NumbersError", "PluginError", "ServiceError",
    ),
    "hookline.loop.api": ("explain", "run"),
    "hookline.runs.run": ("Run",),
    "hookline.models.adapters": ("load_adapter",),
    "hookline.models.scores": ("score_labels",),
    "hookline.storage.paths": ("model_folder",),
    "hookline.study.compare": ("compare",),
    "hookline.study.dataset": ("convert_data", "inspect_data", "rows", "validate_data"),
    "hookline.study.finished": ("evaluate", "export"),
    "hookline.study.speak": ("chat", "generate", "speaker"),
    "hookline.study.intervals": ("Estimate", "figure_interval", "interval"),
    "hookline.study.judging.agreement": ("krippendorff",),
    "hookline.study.judging.aggregation": ("crowd_bt", "dawid_skene", "glad", "majority", "one_coin"),
    "hookline.study.judging.annotators": ("agreement", "annotators"),
    "hookline.study.judging.calibration": ("calibration", "ceiling", "ceiling_of_agreement"),
    "hookline.study.judging.choosing": ("choose", "posterior"),
    "hookline.study.judging.contest": ("contests",),
    "hookline.study.judging.entrants": ("put_contest",),
    "hookline.study.judging.models": ("model_ratings",),
    "hookline.study.judging.optimised": ("best_of_n", "overoptimisation"),
    "hookline.study.judging.ratings": ("bradley_terry", "davidson", "length_controlled", "ratings"),
    "hookline.study.judging.reading": ("read_events", "remove_annotator"),
    "hookline.study.judging.reward_models": ("judge_reward_model",),
    "hookline.study.judging.sequential": ("always_valid",),
    "hookline.study.reproduce": ("reproduce",),
    "hookline.study.sweep": ("sweep",),
    "hookline.study.table": ("Column", "Table"),
    "hookline.synonyms": ("meanings",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [
    "HOOK_API",
    "Adapter",
    "Advantaged",
    "Architecture",
    "Argument",
    "Batch",
    "Behaviour",
    "Candidate",
    "CheckpointError",
    "CodePath",
    "Column",
    "Command",
    "Comment",
    "Comparison",
    "Completion",
    "Completions",
    "Component",
    "Config",
    "Context",
    "Correction",
    "Counts",
    "DataError",
    "DataName",
    "Decoding",
    "Encoded",
    "Encoder",
    "Engine",
    "Environment",
    "Estimate",
    "Evaluation",
    "Event",
    "EventFormat",
    "Experiment",
    "ExperimentError",
    "Family",
    "Format",
    "Head",
    "HooklineError",
    "Item",
    "Judgement",
    "KeptIds",
    "LocalPath",
    "Loss",
    "Metric",
    "MicroBatch",
    "Model",
    "ModelPath",
    "NextToken",
    "NumbersError",
    "Out",
    "Overlong",
    "Phase",
    "PhaseName",
    "PluginError",
    "Process",
    "Producer",
    "Ranking",
    "Rating",
    "Record",
    "Request",
    "Rollout",
    "Run",
    "Sampling",
    "Scored",
    "ServiceError",
    "Skip",
    "Span",
    "Spans",
    "State",
    "Stats",
    "Store",
    "StoreName",
    "Table",
    "Task",
    "Term",
    "Thumb",
    "Tokenizer",
    "Turn",
    "UpdateConfig",
    "Use",
    "Verified",
    "Vocabulary",
    "__version__",
    "agreement",
    "always_valid",
    "annotators",
    "as_row",
    "best_of_n",
    "bradley_terry",
    "calibration",
    "ceiling",
    "ceiling_of_agreement",
    "chat",
    "choose",
    "compare",
    "concat",
    "contests",
    "convert_data",
    "crowd_bt",
    "davidson",
    "dawid_skene",
    "evaluate",
    "explain",
    "export",
    "figure_interval",
    "figure_name",
    "generate",
    "glad",
    "hookimpl",
    "inspect_data",
    "instance_name",
    "interval",
    "judge_reward_model",
    "krippendorff",
    "length_controlled",
    "load_adapter",
    "majority",
    "meanings",
    "model_folder",
    "model_ratings",
    "newest",
    "one_coin",
    "overoptimisation",
    "pad_rows",
    "pairs",
    "posterior",
    "prompt_messages",
    "put_contest",
    "put_last",
    "ratings",
    "read_events",
    "read_last",
    "remove_annotator",
    "reproduce",
    "rows",
    "run",
    "score_labels",
    "settled",
    "settled_rows",
    "speaker",
    "store",
    "sweep",
    "task",
    "use",
    "validate_data",
]

if TYPE_CHECKING:
    from hookline.batch.columns import pad_rows, put_last, read_last
    from hookline.batch.encoded import Encoded
    from hookline.batch.join import concat, pairs
    from hookline.batch.stages import (
        Advantaged,
        Batch,
        Behaviour,
        KeptIds,
        Record,
        Rollout,
        Sampling,
        Scored,
        Term,
    )
    from hookline.config.objects import use
    from hookline.config.typed import Evaluation, Experiment, Model, Phase
    from hookline.contract.command import Argument, Command, Out
    from hookline.contract.component import Component
    from hookline.contract.context import Context, NextToken
    from hookline.contract.encoder import Encoder, Overlong
    from hookline.contract.engine import Completion, Completions, Engine, Request
    from hookline.contract.environment import Environment, Turn
    from hookline.contract.event_format import EventFormat
    from hookline.contract.family import Decoding, Family
    from hookline.contract.feedback import (
        Candidate,
        Comment,
        Comparison,
        Correction,
        Event,
        Producer,
        Ranking,
        Rating,
        Skip,
        Span,
        Spans,
        Thumb,
    )
    from hookline.contract.fields import (
        CodePath,
        Config,
        DataName,
        LocalPath,
        ModelPath,
        PhaseName,
        StoreName,
        UpdateConfig,
        Use,
        instance_name,
    )
    from hookline.contract.format import Format
    from hookline.contract.hookspecs import HOOK_API, hookimpl
    from hookline.contract.judgement import Judgement
    from hookline.contract.loss import Loss, MicroBatch, Stats
    from hookline.contract.metrics import Metric, figure_name
    from hookline.contract.model import Adapter, Architecture, Head, Vocabulary
    from hookline.contract.process import Process, State
    from hookline.contract.settled import newest, settled, settled_rows
    from hookline.contract.store import Counts, Item, Store, Verified
    from hookline.contract.task import Task
    from hookline.data.judged import as_row
    from hookline.data.messages import prompt_messages
    from hookline.data.stores import store
    from hookline.data.tasks import task
    from hookline.errors import (
        CheckpointError,
        DataError,
        ExperimentError,
        HooklineError,
        NumbersError,
        PluginError,
        ServiceError,
    )
    from hookline.loop.api import explain, run
    from hookline.models.adapters import load_adapter
    from hookline.models.scores import score_labels
    from hookline.runs.run import Run
    from hookline.storage.paths import model_folder
    from hookline.study.compare import compare
    from hookline.study.dataset import convert_data, inspect_data, rows, validate_data
    from hookline.study.finished import evaluate, export
    from hookline.study.intervals import Estimate, figure_interval, interval
    from hookline.study.judging.aggregation import crowd_bt, dawid_skene, glad, majority, one_coin
    from hookline.study.judging.agreement import krippendorff
    from hookline.study.judging.annotators import agreement, annotators
    from hookline.study.judging.calibration import calibration, ceiling, ceiling_of_agreement
    from hookline.study.judging.choosing import choose, posterior
    from hookline.study.judging.contest import contests
    from hookline.study.judging.entrants import put_contest
    from hookline.study.judging.models import model_ratings
    from hookline.study.judging.optimised import best_of_n, overoptimisation
    from hookline.study.judging.ratings import bradley_terry, davidson, length_controlled, ratings
    from hookline.study.judging.reading import read_events, remove_annotator
    from hookline.study.judging.reward_models import judge_reward_model
    from hookline.study.judging.sequential import always_valid
    from hookline.study.reproduce import reproduce
    from hookline.study.speak import chat, generate, speaker
    from hookline.study.sweep import sweep
    from hookline.study.table import Column, Table
    from hookline.synonyms import meanings
    from hookline.tokens.tokenizer import Tokenizer


_RENAMED = {"Drawn": "Completions", "Outlook": "NextToken", "Support": "KeptIds"}
"""Old public name → new one."""


def __getattr__(name: str) -> object:
    if name in _RENAMED:
        from hookline.errors import renamed

        renamed(f"hookline.{name}", _RENAMED[name])
        name = _RENAMED[name]
    home = _HOME_OF.get(name) or _home_of_base(name)
    if not home:
        raise AttributeError(f"module 'hookline' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def _home_of_base(name: str) -> str:
    """The module of a kind's base class, all of which are public; empty for other names."""
    from hookline.contract.kinds import KINDS

    bases = (base.rpartition(":") for kind in KINDS.values() for base in kind.base_names)
    return next((module for module, _, cls in bases if cls == name), "")


def __dir__() -> list[str]:
    return __all__
