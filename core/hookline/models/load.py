"""Models in their roles: policy, reference, critic, reward model. Built from a config, a local folder, or an earlier phase."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from hookline import rng
from hookline.config.experiment import ModelSpec
from hookline.contract.component import Component
from hookline.contract.context import Heads
from hookline.contract.family import Family
from hookline.contract.model import Adapter, Architecture, Head, Vocabulary
from hookline.errors import ExperimentError, cause, shorten
from hookline.models.adapters import merged
from hookline.models.causal import Causal, quiet
from hookline.models.folder import check_folder
from hookline.models.role import BESIDE_NET, ReadHead, Role, saved_tensors
from hookline.models.scores import HEAD, scores_of
from hookline.registry.slot import Slot

__all__ = ["build_policy", "check_adapter", "check_computing", "family_of", "load_folder", "load_role"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU = torch.device("cpu")
C = TypeVar("C", bound=Component)


def family_of(slot: Slot | None) -> Family:
    """The family that an experiment names, or `causal`, the default."""
    if slot is not None:
        return _made(slot, Family)
    made = Causal(Causal.Config())
    made.instance = "causal"
    return made


def _made(slot: Slot, kind: type[C]) -> C:
    """A slot's component, which the plan has shown to be of this kind."""
    component = slot.component
    assert isinstance(component, kind)
    return component


def _settle(net: Any, spec: ModelSpec) -> Any:
    quiet()  # also where a network was built
    kept = net.state_dict().keys()
    exact = {name: buffer for name, buffer in net.named_buffers() if name not in kept}
    net = net.to(DTYPES[spec.dtype or "float32"])
    for name, buffer in exact.items():  # e.g. rotary frequencies, which half precision would round away
        owner, _, attribute = name.rpartition(".")
        setattr(net.get_submodule(owner), attribute, buffer)
    never_drop_out(net)
    one_operation(net)
    _compute_as_asked(net, spec)
    return net


def _compute_as_asked(net: Any, spec: ModelSpec) -> None:
    """Set how attention is computed and what the backward pass recomputes. Raises ExperimentError for a network that cannot."""
    if spec.attention not in (None, "auto"):
        _attend(net, spec.attention)
    if spec.gradient_checkpointing:
        try:
            net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        except (AttributeError, ValueError):
            raise ExperimentError(
                f"gradient_checkpointing: the network {type(net).__name__} cannot recompute activations",
                "leave out the option",
            ) from None


def _attend(net: Any, attention: str) -> None:
    asked = {"flash": "flash_attention_2"}.get(attention, attention)
    before = getattr(getattr(net, "config", None), "_attn_implementation", None)
    own = getattr(net, "_compatible_flash_implementations", None)
    try:
        if not hasattr(net, "set_attn_implementation"):
            why = "it has no choice of attention"
        elif attention == "flash" and own and asked not in own:  # transformers would download one of them
            why = f"its kernels are others ({', '.join(own)})"
        else:
            net.set_attn_implementation(asked)
            stays = net.config._attn_implementation != asked  # a network without a switch: transformers only warns
            why = f"it was built with {before}, which cannot be changed" if stays else ""
    except Exception as err:
        why = cause(err)
    if why:
        raise ExperimentError(
            f"attention: {attention}: the network {type(net).__name__} cannot compute it: {shorten(why, 200)}",
            f"leave the option out, which computes it by {before}" if before else "leave the option out",
        )


def never_drop_out(net: Any) -> None:
    """Switch dropout off: it would make gradients depend on how rows are split, and sampling differ from training."""
    for module in net.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ((name == "p" and isinstance(module, nn.Dropout)) or "dropout" in name):
                setattr(module, name, 0.0)


TANH_GELU = ("NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation")


def one_operation(net: nn.Module) -> None:
    """Compute activations that transformers writes as eight operations by the one of torch that gives the same numbers.

    GPT-2 and its relatives spend a fifth of their training time in them. Results agree to rounding.
    """
    for module in net.modules():
        for name, part in list(module.named_children()):
            if type(part).__module__ == "transformers.activations" and type(part).__name__ in TANH_GELU:
                setattr(module, name, nn.GELU(approximate="tanh"))


def _check_finite(net: nn.Module, path: str) -> None:
    """Refuse weights that are not numbers: a model that has one predicts nothing, but would still answer."""
    for name, tensor in net.state_dict().items():
        if not (tensor.is_floating_point() and tensor.numel()):
            continue
        ends = torch.stack(torch.aminmax(tensor.detach()))  # both are NaN if one value is
        if not bool(torch.isfinite(ends).all()):
            what = "NaN" if bool(ends.isnan().any()) else "an infinite value"
            raise ExperimentError(
                f"the weight {name} in {path} holds {what}, so the model predicts nothing",
                "restore the file, or save the model again from a checkpoint with finite weights",
            )


def _autocast(spec: ModelSpec) -> torch.dtype | None:
    return DTYPES[spec.autocast] if spec.autocast not in (None, "none") else None


def _attach(net: Any, adapter: Slot, seed: int) -> tuple[Any, bool]:
    """The network with an adapter, and whether it still computes what it computed without."""
    made = _made(adapter, Adapter)  # type: ignore[type-abstract]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.key(seed, "adapter"))
        return made.attach(net), made.folder is None


def _attach_saved(net: Any, adapter: Slot, saved: Mapping[str, Any] | None, seed: int) -> Any:
    """The network with an adapter of the saved shape, whose weights follow. saved: peft's config of it, which `Role.save` kept."""
    if saved is None:
        return _attach(net, adapter, seed)[0]
    from peft import LoraConfig, get_peft_model

    return get_peft_model(net, LoraConfig.from_peft_type(**saved))


def check_adapter(architecture: Slot | None, path: str | None, adapter: Slot | str, family: Family) -> None:
    """Try an adapter on the model's skeleton; a misfit raises its error.

    adapter: a component, or the folder of one that is merged.
    """
    made = adapter if isinstance(adapter, str) else adapter.component
    with _skeleton(architecture, path, family) as net:
        if net is not None and isinstance(made, str):
            merged(net, made)
        elif net is not None and isinstance(made, Adapter):
            made.attach(net)


def check_computing(architecture: Slot | None, path: str | None, spec: ModelSpec, family: Family) -> None:
    """Try `attention` and `gradient_checkpointing` on the model's skeleton; what it cannot do raises an ExperimentError."""
    if spec.attention in (None, "auto") and not spec.gradient_checkpointing:
        return
    with _skeleton(architecture, path, family) as net:
        if net is not None:
            _compute_as_asked(net, spec)


@contextmanager
def _skeleton(architecture: Slot | None, path: str | None, family: Family) -> Iterator[Any]:
    """The model's layers and shapes without weights; None for what cannot be built without a tokenizer or weights, which is
    tried when the run has them."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            net = (
                family.empty(str(path)) if architecture is None else _made(architecture, Architecture).build(_Tokens())  # type: ignore[type-abstract]
            )
        except Exception:
            net = None
        yield net


@dataclass(frozen=True)
class _Tokens:
    """A vocabulary for skeletons, where only shapes matter."""

    vocabulary: int = 8
    special: Mapping[str, int] = field(default_factory=dict)


def build_policy(
    spec: ModelSpec,
    architecture: Slot | None,
    adapter: Slot | None,
    tokenizer: Vocabulary,
    seed: int,
    family: Family,
    device: torch.device = CPU,
) -> Role:
    """The experiment's model, before any phase: from a config with seeded weights, or from a local folder.

    Weights are drawn on the CPU, so that they are the same on every device, and then moved.
    """
    brought: dict[str, nn.Linear] = {}
    if architecture is None:
        net, brought = _of_folder(str(spec.path), family)
        net = merged(net, spec.merge) if spec.merge else net
        has = family.vocabulary(net)
        if has < tokenizer.vocabulary:
            raise ExperimentError(
                f"the tokenizer has {tokenizer.vocabulary} tokens, but the model in {spec.path} has only {has}",
                "use the tokenizer that belongs to the model",
            )
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.key(seed, "build"))
            net = _made(architecture, Architecture).build(tokenizer)  # type: ignore[type-abstract]
    net, fresh = _settle(net, spec), False
    if adapter is not None:
        net, fresh = _attach(net, adapter, seed)
    role = _role("policy", net, spec, family, adapter is not None, device)
    role.adapter_fresh, role.brought = fresh, brought
    return role


def _of_folder(path: str, family: Family) -> tuple[Any, dict[str, nn.Linear]]:
    """The network of a folder; for a reward model without its score layer, which comes by the name of its head."""
    check_folder(path)
    if "scores" in family.sides and scores_of(path) is not None:
        net, layer = family.load_scores(path)
        _check_finite(layer, path)
        brought = {HEAD: layer}
    else:
        net, brought = family.load(path), {}
    _check_finite(net, path)
    return net, brought


def load_folder(name: str, path: str, spec: ModelSpec, family: Family, device: torch.device = CPU) -> Role:
    """The model of a folder as a role; the score layer of a reward model is its head `reward`."""
    net, brought = _of_folder(path, family)
    role = _role(name, _settle(net, spec), spec, family, False, device)
    for head, layer in brought.items():
        role.heads[head] = ReadHead(layer, "after").to(device)
    return role


def _role(name: str, net: Any, spec: ModelSpec, family: Family, adapted: bool, device: torch.device) -> Role:
    return Role(
        name,
        net.to(device),
        family,
        autocast=_autocast(spec),
        adapter=adapted,
        recompute=bool(spec.gradient_checkpointing),
    )


def load_role(
    name: str,
    folder: Path,
    spec: ModelSpec,
    head: Slot | None,
    adapter: Slot | None,
    saved_adapter: bool,
    seed: int,
    heads: Heads | None = None,
    *,
    family: Family,
    device: torch.device = CPU,
) -> Role:
    """The model with which an earlier phase ended, as a new role. `spec` says how the new role computes."""
    about = json.loads((folder / "role.json").read_text(encoding="utf-8"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _settle(family.empty(folder), spec)
    tensors = saved_tensors(folder)
    adapted = adapter is not None and saved_adapter
    if adapter is not None and saved_adapter:
        net = _attach_saved(net, adapter, about.get("adapter"), seed)
    role = _role(name, net, spec, family, adapted, device)
    if head is not None and head.instance in about["heads"]:
        made = _made(head, Head)  # type: ignore[type-abstract]
        role.add_head(head.instance, made.build, made.reads, (seed,))
    if callable(heads):
        heads = {name: make for name in about["heads"] if (make := heads(name))}
    for asked, make in (heads or {}).items():
        if asked not in about["heads"]:
            has = ", ".join(about["heads"]) or "none"
            raise ExperimentError(
                f"the model in {folder} has no head '{asked}'; it has: {has}", "name the phase that trained it"
            )
        role.add_head(asked, make, about["heads"][asked], (seed,))
    mine = role.tensors()
    role.load_tensors({k: v for k, v in tensors.items() if k in mine or not k.startswith(BESIDE_NET)}, str(folder))
    if adapter is not None and not saved_adapter:
        net, role.adapter_fresh = _attach(role.net.to(CPU), adapter, seed)
        role.net, role.adapter = net.to(device), True
    return role
