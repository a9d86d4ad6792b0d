"""Laws about networks: folders that hold what they should, adapters that fit, room for what is drawn, attention that exists."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from hookline.config.experiment import ModelSpec
from hookline.contract.fields import marked
from hookline.errors import DataError, ExperimentError, HooklineError
from hookline.models.adapters import check_adapter_folder
from hookline.models.folder import check_folder, positions
from hookline.models.load import check_adapter, check_computing, family_of
from hookline.models.scores import HEAD, scores_of
from hookline.plan.plan import Place, Plan
from hookline.plan.slots import Problem
from hookline.registry.slot import Slot
from hookline.tokens.tokenizer import Tokenizer
from hookline.world import devices

__all__ = [
    "folders_hold_what_they_should",
    "model_is_large_enough",
    "networks_compute_as_asked",
    "reward_models_stay_reward_models",
]


def networks_compute_as_asked(plan: Plan) -> Iterator[Problem]:
    """Networks have the attention that the experiment asks for, and recompute activations where they should; tried without weights."""
    try:
        device = devices.resolve(plan.experiment.device)
    except ExperimentError:  # another law says that the device does not exist
        return
    tried = []
    for phase in plan.phases:
        spec, family = plan.model_of(phase), family_of(plan.family)
        named: list[tuple[Place, Slot | None, str | None]] = [((), plan.architecture, plan.experiment.model.path)]
        for slot in phase.with_evaluations:
            named += [((*slot.path, key), None, folder) for key, folder in marked(slot.config, "model").items()]
        for place, architecture, path in named:
            if (path, spec) in tried:
                continue
            tried.append((path, spec))
            try:
                _flash_is_there(spec, device.type)
                check_computing(architecture, path, spec, family)
            except ExperimentError as err:
                option = err.message.partition(":")[0]
                owner = phase.at if getattr(phase.spec.model, option, None) is not None else ()
                yield Problem(place or (*owner, "model", option), err)


def _flash_is_there(spec: ModelSpec, device: str) -> None:
    """FlashAttention, if it is asked for, has a GPU, bfloat16 and its package. Raises ExperimentError."""
    if spec.attention != "flash":
        return
    lacks = (
        "a GPU, and the device is not one"
        if device != "cuda"
        else "bfloat16: set `dtype` or `autocast`"
        if "bfloat16" not in (spec.dtype, spec.autocast)
        else "the package flash-attn (pip install flash-attn)"
        if importlib.util.find_spec("flash_attn") is None
        else ""
    )
    if lacks:
        raise ExperimentError(f"attention: flash needs {lacks}", "choose sdpa, or leave the option out")


def folders_hold_what_they_should(plan: Plan) -> Iterator[Problem]:
    """The model and tokenizer folders are valid, as far as that can be checked without reading weights."""
    yield from _folders_of_components(plan)
    spec, path, merge = plan.experiment.tokenizer, plan.experiment.model.path, plan.experiment.model.merge
    if merge:
        try:
            check_adapter_folder(merge)
        except ExperimentError as err:
            yield Problem(("model", "merge"), err)
            return
    try:
        if path:
            check_folder(path)
            scores_of(path)
    except ExperimentError as err:
        yield Problem(("model", "path"), err)
        return
    try:
        if spec is None or spec.path:
            Tokenizer.file((spec.path if spec else path) or "")
    except (DataError, ExperimentError) as err:
        yield Problem(("tokenizer", "path") if spec else ("model", "path"), err)


def _folders_of_components(plan: Plan) -> Iterator[Problem]:
    """The models that components name, with their tokenizers."""
    for slot in plan.every():
        for key, folder in marked(slot.config, "model").items():
            try:
                check_folder(folder)
                scores_of(folder)
                Tokenizer.file(folder)
            except (DataError, ExperimentError) as err:
                yield Problem((*slot.path, key), err)


def reward_models_stay_reward_models(plan: Plan) -> Iterator[Problem]:
    """An experiment that starts from a reward model trains its score, and asks nothing that needs predicted tokens."""
    path = plan.experiment.model.path
    try:
        check_folder(path or "")
        found = scores_of(path or "")
    except ExperimentError:  # another law reports it
        return
    if found is None:
        return
    if len(found.labels) > 1:
        labels = ", ".join(found.labels)
        yield Problem(("model", "path"), f"{path} gives {len(found.labels)} scores ({labels}), but a phase trains one")
    for phase in plan.phases:
        if phase.head is None or phase.head.instance != HEAD:
            says = f"the head '{phase.head.instance}'" if phase.head else "no head"
            yield Problem(
                (*phase.at, "model"),
                f"{path} is a reward model, but phase '{phase.spec.name}' has {says}, so that its score layer would be lost; "
                f"write model: {{head: {HEAD}}}, or name a language model as model.path",
            )
        for slot in phase.with_evaluations:
            if slot.needs & {"before", "decodes"}:
                text = f"'{slot.instance}' needs a model that predicts tokens, but {path} is a reward model"
                yield Problem(slot.path, text)


def model_is_large_enough(plan: Plan) -> Iterator[Problem]:
    """Rollouts fit into the model's positions, and adapters fit its layers; checked before any weight exists."""
    path = plan.experiment.model.path
    most = positions(plan.architecture, path)
    for slot in (s for p in plan.phases for s in (p.rollout, *(e.rollout for e in p.evaluations))):
        needed = slot.positions
        if most is not None and needed > most:
            asked = [f"{k} is {v}" for k, v in slot.config if type(v) is int and needed - 1 <= v <= needed]
            why = ": " + ", ".join(asked) if asked else ""
            err = ExperimentError(
                f"'{slot.instance}' needs {needed} positions, including one token of the prompt{why}; "
                f"the model has {most} positions",
                "ask for fewer tokens, or build a model with a longer context",
            )
            yield Problem(slot.path, err)
    if path and plan.experiment.model.merge:
        try:
            check_adapter(None, path, plan.experiment.model.merge, family_of(plan.family))
        except HooklineError as err:
            yield Problem(("model", "merge"), err)
            return
    tried: list[Slot] = []
    for adapter in (phase.adapter for phase in plan.phases if phase.adapter):
        if any(adapter.config == other.config and adapter.offer == other.offer for other in tried):
            continue
        tried.append(adapter)
        try:
            check_adapter(plan.architecture, path, adapter, family_of(plan.family))
        except HooklineError as err:
            option = [key for key, _ in adapter.config if err.message.startswith(f"{adapter.instance}.{key}: ")]
            yield Problem((*adapter.path, *option), err)
