"""Items of a contest: what two models or more answered to the same prompts, blinded, in an order that says nothing."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hookline.batch.stages import Sampling
from hookline.contract.feedback import Candidate, Producer
from hookline.contract.store import Item, Store
from hookline.data.messages import prompt_messages
from hookline.errors import DataError, ExperimentError
from hookline.runs.directory import json_of
from hookline.runs.run import Run
from hookline.storage.paths import model_folder
from hookline.study.dataset import rows
from hookline.study.figure import Figure, figure_of
from hookline.study.grouping import Entry, Json, entries_of, groups_of, labelled
from hookline.study.judging.contest import CONTEST
from hookline.study.measure import Evaluations
from hookline.study.speak import generate, run_of

__all__ = ["contest_items", "put_contest"]


@dataclass(frozen=True)
class _Entrant:
    """One model of a contest."""

    label: str
    seed: int
    by: Producer
    answers: tuple[str, ...]


@dataclass(frozen=True)
class _Asked:
    """A prompt, with the dataset row that it comes from."""

    prompt: Any
    record: Mapping[str, Any]


def contest_items(
    models: Sequence[str | Path],
    *,
    prompts: str | None = None,
    phase: str | None = None,
    most: int | None = None,
    ask: Mapping[str, Any] | None = None,
    overlap: int = 1,
    seed: int = 0,
    **drawing: Any,
) -> list[Item]:
    """The answers of models to the same prompts, as items to be judged: each model against the first one.

    models: runs, sweeps, and with `prompts` also RUN/phases/NAME and transformers folders, each optionally as `LABEL=PATH`.
    The runs of a sweep are grouped and paired by seed, as in `hookline.compare`. prompts: a data name, whose rows have
    `prompt` or `messages`; default: what each run answered in its last evaluation, which must have had the same prompts and
    the same sampling. phase: whose evaluation, or whose model. most: the number of prompts, drawn at random; None: all.
    ask: the question, as in docs/collect.md; with `kind: rating`, each answer is an item of its own. overlap: how many
    annotators judge each item. seed: of the answers, and of the choice and the order of prompts. drawing: with `prompts`, the
    other options of `hookline.generate`.

    Raises ExperimentError for fewer than two models, DataError if the prompts differ or one model answered nothing.
    """
    how = {**drawing, "seed": seed}
    asked, pairs = _drawn(models, prompts, phase, how, most) if prompts else _recorded(models, phase)
    for one in {id(side): side for pair in pairs for side in pair}.values():
        if not any(answer.strip() for answer in one.answers):
            raise DataError(
                f"all answers of {one.label} are empty", "name a run whose policy answers, or give --prompts"
            )
    kept = _chosen(len(asked), most, seed)
    found = list(_items(pairs, {i: asked[i] for i in kept}, dict(ask or {}), overlap))
    random.Random(f"{seed} items").shuffle(found)
    if not found:
        raise DataError("the models answered every prompt alike, so there is nothing to judge", "compare other weights")
    return found


def put_contest(store: Store, models: Sequence[str | Path], **how: Any) -> tuple[list[Item], int]:
    """Put the answers of models to the same prompts into a store, to be judged: each model against the first one.

    models, how: as for `contest_items`: `prompts`, `phase`, `most`, `ask`, `overlap`, and with `prompts` the options of
    `hookline.generate`. Returns all items, and how many of them are new. Raises DataError if the store holds another contest.
    """
    items = contest_items(models, **how)
    ours, theirs = _what(items), _what(store.items())
    if theirs and theirs != ours:
        same = {between for between, _ in theirs} == {between for between, _ in ours}
        names = ", ".join(sorted({f"'{other}' against '{base}'" for (base, other), _ in theirs}))
        what = "the same contest with other prompts, weights or questions" if same else f"another contest: {names}"
        raise DataError(f"the store holds {what}", "give this one a store of its own: --store")
    return items, len(store.put(items))


def _chosen(count: int, most: int | None, seed: int) -> list[int]:
    """The numbers of up to `most` prompts, drawn at random, in their order."""
    numbers = list(range(count))
    random.Random(f"{seed} prompts").shuffle(numbers)
    return sorted(numbers[:most])


def _what(items: Iterable[Item]) -> set[tuple[tuple[str, str], str]]:
    """(who is compared, the item's id) of each item of a contest."""
    between = [(item.extra[CONTEST]["between"], item.id) for item in items if CONTEST in item.extra]
    return {((str(base), str(other)), name) for (base, other), name in between}


# -- what the models answered


def _recorded(models: Sequence[str | Path], phase: str | None) -> tuple[list[_Asked], list[tuple[_Entrant, _Entrant]]]:
    """What runs answered in their evaluations."""
    for argument in models:
        _, path, _ = labelled(argument)
        if path.is_dir() and not Run.is_one(path) and (path / "config.json").is_file():
            raise ExperimentError(
                f"{path} is a model folder, which has no evaluation", "give the prompts: --prompts DATA"
            )
    entries, notes = entries_of(models)
    if not entries:
        raise ExperimentError("a contest is between two models or more", "name two runs, or a sweep")
    figure = figure_of(entries, None, phase)
    if figure.evaluation is None:
        raise ExperimentError(f"phase '{figure.phase}' has no evaluation", "give the prompts: --prompts DATA")
    kept = Evaluations(entries, figure)
    if kept.missing:
        raise DataError(
            f"{kept.missing[0].where} has no answers of the evaluation '{figure.evaluation}'",
            "give the prompts: --prompts DATA",
        )
    _same_sampling(entries, figure)
    asked: list[_Asked] = []
    entrants: dict[int, _Entrant] = {}
    for entry in entries:
        steps = kept.by_run[id(entry)]
        firsts = {sample["group"]: sample for sample in reversed(steps[max(steps)])}
        samples = [firsts[group] for group in sorted(firsts)]
        asked = [_Asked(str(sample["prompt"]), {}) for sample in samples]
        by = _producer(entry.label, entry.run, figure.phase, max(steps))
        entrants[id(entry)] = _Entrant(
            entry.label, entry.seed, by, tuple(str(sample["response"]) for sample in samples)
        )
    return asked, _paired(entries, entrants, notes)


def _same_sampling(entries: Sequence[Entry], figure: Figure) -> None:
    """Raises DataError if evaluations drew answers in different ways."""
    found: dict[str, Entry] = {}
    for entry in entries:
        spec = entry.phase(figure.phase) or {}
        evaluation = next(one for one in spec["evaluate"] if one["name"] == figure.evaluation)
        options = (evaluation.get("rollout") or spec["rollout"]).get("options", {})
        usual = {each.name: each.default for each in fields(Sampling)}
        how = {name: options.get(name, usual.get(name)) for name in (*usual, "max_new_tokens")}
        found.setdefault(json.dumps(how), entry)
    if len(found) > 1:
        (one, a), (two, b), *_ = found.items()
        raise DataError(
            f"{a.where} and {b.where} drew their answers with other settings ({one} and {two})",
            "draw them anew: --prompts DATA",
        )


def _paired(
    entries: Sequence[Entry], entrants: Mapping[int, _Entrant], notes: list[str]
) -> list[tuple[_Entrant, _Entrant]]:
    """Each configuration and the first one, seed by seed; or single runs as they are named."""
    if len({entry.argument for entry in entries}) == len(entries):  # each named by itself
        return _against_first([entrants[id(entry)] for entry in entries])
    first, *others = groups_of(entries, notes)
    pairs = []
    for group in others:
        shared = [seed for seed in group.seeds if seed in first.seeds]
        if not shared:
            raise ExperimentError(
                f"'{first.label}' and '{group.label}' have no seed in common",
                "name one run of each: LABEL=RUN LABEL=RUN",
            )
        for seed in shared:
            sides = [(g.label, entrants[id(g.entries[g.seeds.index(seed)])]) for g in (first, group)]
            base, other = (
                _Entrant(label, seed, one.by.model_copy(update={"name": label}), one.answers) for label, one in sides
            )
            pairs.append((base, other))
    if not pairs:
        raise ExperimentError(
            "all runs have the same configuration", "name runs that differ, or give labels: LABEL=RUN LABEL=RUN"
        )
    return pairs


def _against_first(entrants: Sequence[_Entrant]) -> list[tuple[_Entrant, _Entrant]]:
    labels = [one.label for one in entrants]
    if len(labels) < 2:
        raise ExperimentError("a contest is between two models or more", "name two runs, or a sweep")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ExperimentError(f"two models are called '{twice}'", "give them labels: LABEL=PATH LABEL=PATH")
    return [(entrants[0], _Entrant(one.label, entrants[0].seed, one.by, one.answers)) for one in entrants[1:]]


def _drawn(
    models: Sequence[str | Path], prompts: str, phase: str | None, how: Json, most: int | None
) -> tuple[list[_Asked], list[tuple[_Entrant, _Entrant]]]:
    """What models answer now."""
    given = rows(prompts).records
    records = [dict(given[i]) for i in _chosen(len(given), most, how["seed"])]
    if not records:
        raise DataError(f"{prompts} has no rows", "give rows with `prompt` or `messages`")
    named = {str(argument): labelled(argument) for argument in models}
    if any(not Run.is_one(path) and list(path.glob("*/run.json")) for _, path, _ in named.values()):
        entries, notes = entries_of(models)
        entrants = {
            id(entry): _answering(entry.label, entry.run.directory, phase, entry.seed, records, how)
            for entry in entries
        }
        pairs = _paired(entries, entrants, notes)
    else:
        if len(models) < 2:
            raise ExperimentError("a contest is between two models or more", "name two runs, or a sweep")
        pairs = _against_first([_answering(label, path, phase, 0, records, how) for label, path, _ in named.values()])
    return [_Asked(_prompt(record), record) for record in records], pairs


def _prompt(record: Mapping[str, Any]) -> Any:
    prompt = record.get("prompt", record.get("messages"))
    return prompt if isinstance(prompt, str) else prompt_messages(record)


def _answering(
    label: str, path: Path, phase: str | None, seed: int, records: Sequence[Mapping[str, Any]], how: Json
) -> _Entrant:
    run, own = run_of(path)
    answers = generate(path / "phases" / phase if run and phase and not own else path, records, **how)
    by = (
        _producer(label, Run.read(run), own or phase)
        if run
        else Producer(name=label, weights=_hash(Path(model_folder(str(path)))))
    )
    return _Entrant(label, seed, by, tuple(answers))


def _producer(label: str, run: Run, phase: str | None, step: int | None = None) -> Producer:
    names = [str(each["name"]) for each in run.experiment["phases"]]
    finished = [name for name in names if (run.phase_folder(name) / "manifest.json").is_file()]
    name = phase or (finished[-1] if finished else "")
    manifest = run.phase_folder(name) / "manifest.json"
    weights = str(json_of(manifest).get("weights") or "") if manifest.is_file() else ""
    return Producer(name=label, run=run.id, phase=name, step=step, weights=weights[:16])


def _hash(folder: Path) -> str:
    """The beginning of a hash of a folder's weights."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


# -- items


def _items(
    pairs: Sequence[tuple[_Entrant, _Entrant]], asked: Mapping[int, _Asked], ask: Json, overlap: int
) -> Iterator[Item]:
    """Comparisons of two answers, or each answer by itself; not what both answered alike, if it is to be compared.

    Every item says how many prompts its two models answered alike at all seeds: a seed with no other prompts has no item.
    """
    rated = ask.get("kind", "comparison") != "comparison"
    alike = [{i for i in asked if not rated and base.answers[i] == other.answers[i]} for base, other in pairs]
    identical = Counter[tuple[str, str]]()
    for (base, other), places in zip(pairs, alike):
        identical[base.label, other.label] += len(places)
    for (base, other), places in zip(pairs, alike):
        about = {
            "between": [base.label, other.label], "seed": other.seed, "runs": [base.by.run, other.by.run],
            "identical": identical[base.label, other.label],
        }  # fmt: skip
        settings = [about, base.by.weights, other.by.weights, ask, overlap]
        for i in [i for i in asked if i not in places]:
            prompt = asked[i].prompt
            candidates = [Candidate(text=side.answers[i], by=side.by) for side in (base, other)]
            for of, shown in enumerate([[each] for each in candidates] if rated else [candidates]):
                said = [*settings, i, of, prompt, *(each.text for each in candidates)]
                mine = {**about, "prompt": str(i), **({"of": of} if rated else {})}
                yield Item(
                    id=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32],
                    prompt=prompt, candidates=tuple(shown), overlap=overlap, record=dict(asked[i].record),
                    extra={CONTEST: mine, "ask": {"kind": "comparison", **ask}},
                )  # fmt: skip
