"""Models in their roles: policy, reference, critic, reward model. Built from a config, a local folder, or an earlier phase."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from hookline import rng
from hookline.config.experiment import ModelSpec
from hookline.contract.model import Adapter, Architecture, Head
from hookline.data.tokenizer import Tokenizer
from hookline.errors import ExperimentError
from hookline.models.folder import check_folder
from hookline.models.role import Role
from hookline.registry.slot import Slot
from hookline.storage import trees

__all__ = ["build_policy", "load_role"]


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _settle(net: Any, spec: ModelSpec) -> Any:
    kept = net.state_dict().keys()
    exact = {name: buffer for name, buffer in net.named_buffers() if name not in kept}
    net = net.to(DTYPES[spec.dtype or "float32"])
    for name, buffer in exact.items():  # e.g. rotary frequencies, which half precision would round away
        owner, _, attribute = name.rpartition(".")
        setattr(net.get_submodule(owner), attribute, buffer)
    _never_drop_out(net)
    if spec.gradient_checkpointing:
        net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return net


def _never_drop_out(net: Any) -> None:
    """Dropout would make a gradient depend on how rows are split, and the sampler's model differ from the trainer's."""
    for module in net.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ((name == "p" and isinstance(module, nn.Dropout)) or "dropout" in name):
                setattr(module, name, 0.0)


def _autocast(spec: ModelSpec) -> torch.dtype | None:
    return DTYPES[spec.autocast] if spec.autocast not in (None, "none") else None


def _attach(net: Any, adapter: Slot | None, seed: int) -> tuple[Any, bool]:
    if adapter is None:
        return net, False
    made = adapter.component
    assert isinstance(made, Adapter)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.key(seed, "adapter"))
        return made.attach(net), True


def check_adapter(architecture: Slot | None, path: str | None, adapter: Slot) -> None:
    """Try an adapter on the model's skeleton, which has layers and shapes but no weights; it refuses what does not fit."""
    made = adapter.component
    if not isinstance(made, Adapter):
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            net = _skeleton(architecture, path)
        except Exception:  # what cannot be built without a tokenizer or weights is tried when the run has them
            return
        made.attach(net)


def _skeleton(architecture: Slot | None, path: str | None) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    if architecture is None:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config)
    made = architecture.component
    assert isinstance(made, Architecture)
    return made.build(cast(Tokenizer, types.SimpleNamespace(vocabulary=8, special={})))


def _from_pretrained(path: str) -> Any:
    from transformers import AutoModelForCausalLM

    check_folder(path)
    try:
        net, about = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except Exception as err:
        why = next((line for line in str(err).splitlines() if line.strip()), type(err).__name__)
        raise ExperimentError(
            f"the model folder {path} cannot be loaded: {why[:200]}", "is it a whole transformers folder?"
        ) from err
    missing = sorted(about["missing_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ExperimentError(
            f"the weights in {path} lack {', '.join(missing[:3])}{more}", "they would start random; restore the files"
        )
    return net


def build_policy(
    spec: ModelSpec, architecture: Slot | None, adapter: Slot | None, tokenizer: Tokenizer, seed: int
) -> Role:
    """The experiment's model, before any phase: from a config with seeded weights, or from a local folder."""
    if architecture is None:
        net = _from_pretrained(str(spec.path))
        if net.get_input_embeddings().num_embeddings < tokenizer.vocabulary:
            raise ExperimentError(
                f"the tokenizer has {tokenizer.vocabulary} tokens, the model in {spec.path} only "
                f"{net.get_input_embeddings().num_embeddings}",
                "use the tokenizer that belongs to the model",
            )
    else:
        made = architecture.component
        assert isinstance(made, Architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.key(seed, "build"))
            net = made.build(tokenizer)
    net, adapted = _attach(_settle(net, spec), adapter, seed)
    role = Role("policy", net, autocast=_autocast(spec), adapter=adapted, recompute=bool(spec.gradient_checkpointing))
    role.adapter_fresh = adapted
    return role


def load_role(
    name: str,
    folder: Path,
    spec: ModelSpec,
    head: Slot | None,
    adapter: Slot | None,
    saved_adapter: bool,
    seed: int,
    heads: Mapping[str, Callable[[int], nn.Module]] | None = None,
) -> Role:
    """The model with which an earlier phase ended, as a new role. `spec` says how it computes from here on."""
    from transformers import AutoConfig, AutoModelForCausalLM

    about = json.loads((folder / "role.json").read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _settle(AutoModelForCausalLM.from_config(config), spec)
    tensors = trees.load_tree(folder, "weights")
    if adapter is not None and saved_adapter:
        net, adapted = _attach(net, adapter, seed)
    else:
        adapted = False
    role = Role(name, net, autocast=_autocast(spec), adapter=adapted, recompute=bool(spec.gradient_checkpointing))
    if head is not None and head.instance in about["heads"]:
        made = head.component
        assert isinstance(made, Head)
        role.add_head(head.instance, made.build, made.reads, (seed,))
    for asked, make in (heads or {}).items():
        if asked not in about["heads"]:
            has = ", ".join(about["heads"]) or "none"
            raise ExperimentError(
                f"the model in {folder} has no head '{asked}'; it has: {has}", "name the phase that trained it"
            )
        role.add_head(asked, make, about["heads"][asked], (seed,))
    mine = role.tensors()
    role.load_tensors({k: v for k, v in tensors.items() if k in mine or not k.startswith("heads.")}, str(folder))
    if adapter is not None and not saved_adapter:
        role.net, role.adapter = _attach(role.net, adapter, seed)
        role.adapter_fresh = True
    return role
