"""Laws about networks: folders that hold what they should, adapters that fit, room for what is drawn, attention that exists."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from hookline.config.experiment import ModelSpec
from hookline.contract.fields import marked
from hookline.errors import DataError, ExperimentError, HooklineError
from hookline.models.adapters import check_adapter_folder
from hookline.models.folder import check_folder, positions
from hookline.models.load import check_adapter, family_of
from hookline.models.scores import HEAD, scores_of
from hookline.plan.plan import Plan
from hookline.plan.slots import Problem
from hookline.registry.slot import Slot
from hookline.tokens.tokenizer import Tokenizer
from hookline.world import devices

__all__ = ["attention_can_be_flash", "folders_hold_what_they_should", "model_is_large_enough", "reward_models_stay_reward_models"]


def attention_can_be_flash(plan: Plan) -> Iterator[Problem]:
    """FlashAttention has a GPU, bfloat16 and its package, where the experiment asks for it."""
    specs: list[tuple[tuple[str | int, ...], ModelSpec]] = [(("model",), plan.experiment.model)]
    specs += [(("phases", i, "model"), plan.model_of(phase)) for i, phase in enumerate(plan.phases) if phase.spec.model.attention]
    for path, spec in specs:
        if spec.attention != "flash":
            continue
        try:
            on_a_gpu = devices.resolve(plan.experiment.device).type == "cuda"
        except ExperimentError:  # another law says that the device does not exist
            continue
        lacks = (
            "a GPU, and the device is not one"
            if not on_a_gpu
            else "bfloat16: set `dtype` or `autocast`"
            if "bfloat16" not in (spec.dtype, spec.autocast)
            else "the package flash-attn (pip install flash-attn)"
            if importlib.util.find_spec("flash_attn") is None
            else ""
        )
        if lacks:
            yield Problem((*path, "attention"), ExperimentError(f"attention: flash needs {lacks}", "choose sdpa, or leave the option out"))


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
