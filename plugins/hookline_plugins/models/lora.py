"""Low-rank adaptation (Hu et al. 2021): train W + (α/r)·BA with W frozen."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

import hookline
from hookline import Adapter, ExperimentError


class LoRA(Adapter):
    """peft's LoRA on every linear layer of the trunk; the reference is the same model with the adapter off."""

    class Config(hookline.Config):
        rank: int = Field(8, ge=1)
        """Rank of the update matrix. Larger learns more and costs more memory."""
        alpha: float | None = Field(None, gt=0)
        """Scale of the update matrix; default: twice the rank."""
        modules: tuple[str, ...] | None = None
        """Layers to adapt by name; default: all linear layers except the output."""

    def attach(self, net: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        c = self.config
        layers = [name for name, module in net.named_modules() if getattr(module, "weight", torch.empty(0)).dim() == 2]
        for wanted in c.modules or ():
            if not any(name == wanted or name.endswith(f".{wanted}") for name in layers):
                raise ExperimentError(
                    f"{self.instance}.modules: the model has no linear layer '{wanted}' to adapt",
                    f"its layers are: {', '.join(sorted({name.rpartition('.')[2] for name in layers}))}",
                )
            self._check_untied(net, wanted)
        return get_peft_model(
            net,
            LoraConfig(
                r=c.rank,
                lora_alpha=c.alpha or 2 * c.rank,
                lora_dropout=0.0,
                bias="none",
                task_type="CAUSAL_LM" if net.get_output_embeddings() is not None else None,  # a reward model has none
                target_modules=list(c.modules) if c.modules else "all-linear",
                fan_in_fan_out=type(net).__name__.startswith("GPT2"),
            ),
        )

    def _check_untied(self, net: Any, wanted: str) -> None:
        """Refuse a layer whose weight is another layer's too: the update would reach one, merging would change both."""
        owners: dict[int, list[str]] = {}
        for name, module in net.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.nn.Parameter):
                owners.setdefault(id(weight), []).append(name)
        for names in owners.values():
            for name in names:
                if len(names) > 1 and (name == wanted or name.endswith(f".{wanted}")):
                    others = ", ".join(f"'{other}'" for other in names if other != name)
                    raise ExperimentError(
                        f"{self.instance}.modules: the layer '{wanted}' shares its weight with {others}, so that an exported "
                        "model would not be the one that was trained",
                        "leave the layer out, or use a model whose embeddings are not tied",
                    )
