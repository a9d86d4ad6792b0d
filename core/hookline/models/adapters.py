"""Adapters as peft saves them: adapter_config.json, adapter_model.safetensors, and a base model that lies elsewhere."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from hookline.errors import ExperimentError, cause, shorten
from hookline.models.folder import check_files

__all__ = ["check_adapter_folder", "load_adapter", "merged"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def check_adapter_folder(path: str) -> None:
    """Refuse an adapter's folder that is incomplete, needs unpickling, or is of a kind that no language model can merge."""
    hint = "give a folder that peft's save_pretrained has written"
    folder = Path(path)
    if not folder.is_dir():
        raise ExperimentError(f"there is no folder {path} with an adapter", hint)
    if not (folder / CONFIG).is_file():
        raise ExperimentError(f"{path} has no {CONFIG}", hint)
    check_files(folder)
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = about["peft_type"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as err:
        why = "it names no peft_type" if isinstance(err, LookupError | TypeError) else shorten(str(err), 200)
        raise ExperimentError(f"{folder / CONFIG} cannot be read: {why}", hint) from None
    if about.get("megatron_config"):  # peft would import the module that the file names
        raise ExperimentError(f"{path} holds an adapter of Megatron's layers", "convert it to transformers' layers")
    if about.get("task_type") == "SEQ_CLS":
        raise ExperimentError(
            f"{path} holds the adapter of a reward model or classifier, whose score layer would be lost",
            "merge it with its model first (peft: merge_and_unload, save_pretrained) and name the merged folder",
        )
    if "PROMPT" in str(kind) or "PREFIX" in str(kind) or kind in ("P_TUNING", "CARTRIDGE"):
        raise ExperimentError(f"{path} holds learned prompts ({kind}), which no weights can take", "use a low-rank adapter")
    if not (folder / WEIGHTS).is_file():
        other = next(iter(sorted(folder.glob("adapter_model.*"))), None)
        has = f"only {other.name}, which would have to be unpickled" if other else "no weights"
        raise ExperimentError(f"the adapter's folder {path} holds {has}", f"save it as {WEIGHTS}: save_pretrained(DIR)")


def load_adapter(net: Any, folder: str) -> Any:
    """Put the adapter of a peft folder onto a transformers network, to go on training it; returns peft's model.

    Dropout is off. On a network without weights (device meta) names and shapes are compared, and nothing is read. Raises
    ExperimentError for an adapter that does not fit, and for one that changes more than what is switched off with it.
    """
    made, besides = _put_on(net, folder)
    config = made.peft_config["default"]
    if besides or getattr(config, "bias", "none") != "none":
        what = f"also changes {besides[0]}" if besides else f"trains biases (bias: {config.bias})"
        raise ExperimentError(
            f"the adapter in {folder} {what}, which stays changed when the adapter is off, as it is for a reference",
            f"merge it instead: model: {{path: FOLDER, merge: {folder}}}",
        )
    return made


def merged(net: Any, folder: str) -> Any:
    """A transformers network with the adapter of a peft folder added to its weights, as peft's merge_and_unload does."""
    made, _ = _put_on(net, folder)
    if not hasattr(made.base_model, "merge_and_unload"):
        kind = made.peft_config["default"].peft_type
        raise ExperimentError(f"the adapter in {folder} ({kind}) cannot be merged", "use one that peft merges, e.g. LoRA")
    net = made.merge_and_unload()
    if hasattr(net, "peft_config"):
        del net.peft_config  # else peft would take a further adapter for a second one
    return net.requires_grad_(True)


def _put_on(net: Any, folder: str) -> tuple[Any, list[str]]:
    """peft's model with the weights of a folder, and the names of weights of the base that the folder holds too."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    check_adapter_folder(folder)
    hint = "name the model on which it was trained"
    skeleton = any(p.is_meta for p in net.parameters())
    try:
        with warnings.catch_warnings(), safe_open(str(Path(folder) / WEIGHTS), "pt") as file:
            warnings.simplefilter("ignore")
            config = PeftConfig.from_pretrained(folder)
            config.inference_mode = False
            if hasattr(config, "lora_dropout"):
                config.lora_dropout = 0.0
            made = get_peft_model(net, config)
            _refuse_shared(made, folder)
            names = list(file.keys())
            stored = {
                name: torch.empty(file.get_slice(name).get_shape(), device="meta") if skeleton else file.get_tensor(name)
                for name in names
            }
            loaded = set_peft_model_state_dict(made, stored)
    except ExperimentError:
        raise
    except (SafetensorError, OSError) as err:
        raise ExperimentError(f"{Path(folder) / WEIGHTS} cannot be read: {cause(err)}", "restore the file") from None
    except Exception as err:
        why = next((line.strip() for line in str(err).splitlines()[1:] if "size mismatch" in line), cause(err))
        raise ExperimentError(
            f"the adapter in {folder} does not fit {type(net).__name__}: {shorten(why, 200)}", hint
        ) from None
    own = {name for name, p in made.named_parameters() if p.requires_grad}
    lacking = sorted(own & set(loaded.missing_keys)) or sorted(loaded.unexpected_keys)
    if lacking:
        does = "has no weights for" if own & set(loaded.missing_keys) else "has weights for layers that the model lacks:"
        raise ExperimentError(
            f"the adapter in {folder} does not fit {type(net).__name__}: it {does} {lacking[0]}", hint
        )
    base = {name for name, _ in made.named_parameters()} - own
    return made, sorted(base - set(loaded.missing_keys))


def _refuse_shared(made: Any, folder: str) -> None:
    """Refuse an adapted layer whose weight is another layer's too: the update would reach one, merging would change both."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    owners = Counter(id(m.weight) for m in made.modules() if isinstance(getattr(m, "weight", None), torch.nn.Parameter))
    for name, module in made.named_modules():
        if isinstance(module, BaseTunerLayer):
            base = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            base = module.original_module
        else:
            continue
        weight = getattr(base, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and owners[id(weight)] - int(getattr(module, "weight", None) is weight) > 1:
            raise ExperimentError(
                f"the adapter in {folder} changes '{name.rpartition('.')[2]}', whose weight is shared with another layer, so "
                "that a merged model would not be the one that was trained",
                "train it on a model whose embeddings are not tied",
            )
