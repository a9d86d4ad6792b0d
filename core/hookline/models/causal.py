"""The family `causal`: models that read text from left to right, as transformers' causal language models do."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from hookline.batch.stages import Batch
from hookline.contract.family import Decoding, Family
from hookline.errors import ExperimentError
from hookline.models.folder import check_folder

__all__ = ["Causal", "sequences"]


class Causal(Family):
    """Causal language models of transformers; the state `before` a token is the state of its left neighbour."""

    sides = frozenset({"before", "after", "decodes"})

    # -- networks

    def empty(self, folder: str | Path) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config)

    def load(self, folder: str | Path) -> Any:
        from transformers import AutoModelForCausalLM

        check_folder(str(folder))
        try:
            net, about = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
        except Exception as err:
            why = next((line for line in str(err).splitlines() if line.strip()), type(err).__name__)
            raise ExperimentError(
                f"the model folder {folder} cannot be loaded: {why[:200]}", "give a complete transformers folder"
            ) from err
        missing = sorted(about["missing_keys"])
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ExperimentError(
                f"the weights in {folder} lack {', '.join(missing[:3])}{more}",
                "restore the files; missing weights would start at random values",
            )
        return net

    def save_config(self, net: Any, folder: Path) -> None:
        net.config.to_json_file(folder / "config.json")

    def export(self, net: Any, folder: Path) -> None:
        net.save_pretrained(folder, safe_serialization=True)

    def context(self, net: Any) -> int:
        c = net.config.get_text_config(decoder=True)
        return int(getattr(c, "max_position_embeddings", 0) or getattr(c, "n_positions", 0) or 1 << 30)

    @torch.no_grad()
    def width(self, net: Any) -> int:
        """As wide as the states that come out: a config may name another width, that of the blocks inside, or none."""
        one = torch.zeros(1, 1, dtype=torch.long, device=next(net.parameters()).device)
        return int(trunk(net, input_ids=one, use_cache=False).last_hidden_state.shape[-1])

    def vocabulary(self, net: Any) -> int:
        return int(net.get_input_embeddings().num_embeddings)

    def output(self, net: Any) -> tuple[Tensor, Tensor | None]:
        layer = net.get_output_embeddings()
        return layer.weight, getattr(layer, "bias", None)

    def is_product(self, net: Any) -> bool:
        """Whether the output layer is one plain product, and the network returns what that layer gives, unchanged."""
        layer = net.get_output_embeddings()
        return {name for name, _ in layer.named_parameters()} <= {"weight", "bias"} and _returns_its_outputs(net, layer)

    # -- rows

    def states(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        hidden_BLH = trunk(net, input_ids=sequences(batch), use_cache=False).last_hidden_state
        rows_N, after_N = _places(batch)
        return {side: hidden_BLH[rows_N, after_N - int(side == "before")] for side in sides}

    def logits(self, net: Any, batch: Batch) -> Tensor:
        ids_BL = sequences(batch)
        rows_N, after_N = _places(batch)
        logits_BLV = net(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), use_cache=False).logits
        return cast(Tensor, logits_BLV[rows_N, after_N - 1])

    # -- decoding

    def prefill(self, net: Any, prompts: Sequence[Sequence[int]], *, filler: int, fused: bool) -> Decoding:
        device = next(net.parameters()).device
        width = max(len(prompt) for prompt in prompts)
        ids_BP = torch.tensor([[filler] * (width - len(p)) + list(p) for p in prompts], dtype=torch.long, device=device)
        state = CausalDecoding(torch.tensor([width - len(p) for p in prompts], device=device), fused)
        self._read(net, state, ids_BP)
        return state

    def step(self, net: Any, state: Decoding, ids_B: Tensor) -> Tensor:
        assert isinstance(state, CausalDecoding)
        return self._read(net, state, ids_B[:, None])

    def _read(self, net: Any, state: CausalDecoding, ids_BL: Tensor) -> Tensor:
        state.seen += ids_BL.shape[1]
        position_BS = torch.arange(state.seen, device=ids_BL.device) - state.pad_B[:, None]
        given = {
            "input_ids": ids_BL,
            "attention_mask": (position_BS >= 0).long(),
            "position_ids": position_BS.clamp(min=0)[:, -ids_BL.shape[1] :],
            "use_cache": True,
            "past_key_values": state.cache,
        }
        if state.fused:
            out = trunk(net, **given)
            weight, bias = self.output(net)
            state.hidden_BH = out.last_hidden_state[:, -1]
            state.logits_BV = torch.nn.functional.linear(state.hidden_BH.to(weight.dtype), weight, bias).float()
        else:
            out = net(**given, logits_to_keep=1)
            state.logits_BV = out.logits[:, -1].float()
        state.cache = out.past_key_values
        return state.logits_BV


class CausalDecoding(Decoding):
    """Prompts padded on the left, and the keys and values of all tokens read so far."""

    def __init__(self, pad_B: Tensor, fused: bool) -> None:
        self.pad_B, self.fused = pad_B, fused
        self.seen = 0
        """Columns read so far, padding included."""
        self.cache: Any = None

    @property
    def movable(self) -> bool:  # type: ignore[override]
        return hasattr(self.cache, "batch_select_indices")

    def rows(self, index_N: Tensor) -> CausalDecoding:
        made = copy.copy(self)
        made.cache = copy.copy(self.cache)
        if hasattr(made.cache, "layers"):  # selecting replaces a layer's tensors, so the layers alone are copied
            made.cache.layers = [copy.copy(layer) for layer in made.cache.layers]
        made.cache.batch_select_indices(index_N)
        made.pad_B, made.logits_BV = self.pad_B[index_N], self.logits_BV[index_N]
        made.hidden_BH = None if self.hidden_BH is None else self.hidden_BH[index_N]
        return made


def trunk(net: Any, **inputs: Any) -> Any:
    """A transformers network without its output layer; `.last_hidden_state` is [B, L, H]."""
    found = getattr(net, net.base_model_prefix, None)
    if found is None:  # the prefix of some text models names a part of a larger model
        words = net.get_input_embeddings()
        found = next(part for part in net.children() if any(module is words for module in part.modules()))
    return found(**inputs)


LARGE = 1e4
"""Logits far beyond every cap in use, and exact enough in half precision."""


@torch.no_grad()
def _returns_its_outputs(net: Any, layer: Any) -> bool:
    """Whether the logits are the output layer's outputs, also where these are large: not capped, scaled or cut off.

    The layer's outputs are replaced by a ramp for one call, so the answer does not depend on how far the weights have
    been trained.
    """
    ramp: list[Tensor] = []

    def replaced(module: Any, given: Any, out_BLV: Tensor) -> Tensor:
        ramp.append(torch.linspace(-LARGE, LARGE, out_BLV.shape[-1], device=out_BLV.device).to(out_BLV.dtype))
        return ramp[-1].expand_as(out_BLV).contiguous()

    ids_BL = torch.zeros(1, 1, dtype=torch.long, device=next(net.parameters()).device)
    handle = layer.register_forward_hook(replaced)
    try:
        found_V = net(input_ids=ids_BL, use_cache=False).logits[0, -1]
    finally:
        handle.remove()
    return len(ramp) == 1 and found_V.shape == ramp[0].shape and torch.allclose(found_V.float(), ramp[0].float(), 1e-3)


def sequences(batch: Batch) -> Tensor:
    """Prompt and response of each row side by side, without a gap: [B, L], right-padded with 0."""
    B, P = batch.prompt_ids_BP.shape
    T = batch.token_ids_BT.shape[1]
    device = batch.token_ids_BT.device
    L = int((batch.prompt_length_B + batch.length_B).max()) if B else 0
    out_BL = torch.zeros(B, max(L, 1), dtype=torch.long, device=device)
    at_P, at_T = torch.arange(P, device=device), torch.arange(T, device=device)
    row, column = (at_P < batch.prompt_length_B[:, None]).nonzero(as_tuple=True)
    out_BL[row, column] = batch.prompt_ids_BP[row, column]
    row, column = (at_T < batch.length_B[:, None]).nonzero(as_tuple=True)
    out_BL[row, batch.prompt_length_B[row] + column] = batch.token_ids_BT[row, column]
    return out_BL


def _places(batch: Batch) -> tuple[Tensor, Tensor]:
    """Row and column of every scored token in `sequences`, each [N]."""
    rows_N, at_N = batch.mask_BT.nonzero(as_tuple=True)
    return rows_N, batch.prompt_length_B[rows_N] + at_N
