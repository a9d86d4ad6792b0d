"""The family `causal`: models that read text from left to right, as transformers' causal language models do."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hookline.batch.laid import lay
from hookline.batch.stages import Batch
from hookline.contract.family import Decoding, Family
from hookline.errors import ExperimentError, HooklineError
from hookline.models.folder import check_folder
from hookline.models.scores import AT, BIAS, SCORE, scores_of, stored_score
from hookline.models.trials import compare_scores, refuse_later_tokens, returns_its_outputs

__all__ = ["Causal", "quiet", "sequences"]


def quiet() -> None:
    """Keep transformers' progress bars and warnings out of logs; its errors are raised."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")


class Causal(Family):
    """Causal language models of transformers; the state `before` a token is the state of its left neighbour."""

    sides = frozenset({"before", "after", "decodes", "packs", "scores"})

    # -- networks

    def empty(self, folder: str | Path) -> Any:
        quiet()
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
            net = AutoModelForSequenceClassification.from_config(config)
            _taken_score(net, folder)
            return net
        return AutoModelForCausalLM.from_config(config)

    def load(self, folder: str | Path) -> Any:
        from transformers import AutoModelForCausalLM

        check_folder(str(folder))
        _refuse_adapter(Path(folder))
        if scores_of(folder) is not None:
            raise ExperimentError(
                f"the model in {folder} is a reward model, which predicts no tokens",
                "name a language model; `reward: {use: reward-model, path: DIR}` reads a reward model",
            )
        net = self._loaded(AutoModelForCausalLM, folder)
        refuse_later_tokens(net, lambda **given: net(**given).logits, folder, self.vocabulary(net))
        return net

    def load_scores(self, folder: str | Path) -> tuple[Any, nn.Linear]:
        from transformers import AutoModelForSequenceClassification

        check_folder(str(folder))
        _refuse_adapter(Path(folder))
        own = stored_score(folder)
        how = {"num_labels": len(own["weight"])} if own else {}
        net = self._loaded(AutoModelForSequenceClassification, folder, {f"{SCORE}.weight"} if own else set(), **how)
        refuse_later_tokens(net, lambda **given: trunk(net, **given).last_hidden_state, folder, self.vocabulary(net))
        if not own:
            compare_scores(net, lambda ids_BL: trunk(net, input_ids=ids_BL, use_cache=False).last_hidden_state, folder)
        layer = _taken_score(net, folder).float()
        if own:
            layer = nn.Linear(layer.in_features, len(own["weight"]), bias="bias" in own)
            layer.load_state_dict({name: tensor.float() for name, tensor in own.items()})
        elif bias := getattr(net.config, BIAS, None):
            weight, layer = layer.weight, nn.Linear(layer.in_features, layer.out_features)
            layer.load_state_dict({"weight": weight.detach(), "bias": torch.tensor(bias)})
        net.config.architectures = [type(net).__name__]
        return net, layer

    def _loaded(self, auto: Any, folder: str | Path, absent: Collection[str] = (), **how: Any) -> Any:
        """A network of one of transformers' classes with all weights of a folder, except those that may be absent."""
        quiet()
        try:
            net, about = auto.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **how,
            )
        except HooklineError:  # e.g. of another rank
            raise
        except Exception as err:
            why = next((line for line in str(err).splitlines() if line.strip()), type(err).__name__)
            raise ExperimentError(
                f"the model folder {folder} cannot be loaded: {why[:200]}", "give a complete transformers folder"
            ) from err
        mismatched = sorted(about["mismatched_keys"])
        if mismatched:
            name, stored, wanted = mismatched[0]
            more = f", and {len(mismatched) - 1} more differ" if len(mismatched) > 1 else ""
            raise ExperimentError(
                f"in {folder} the weight {name} has the shape {list(stored)}, but config.json describes {list(wanted)}{more}",
                "use the config.json that was saved with these weights",
            )
        if f"{SCORE}.bias" in about["unexpected_keys"]:
            raise ExperimentError(
                f"the score of {folder} has a bias, which {type(net).__name__} does not read",
                f"leave {SCORE}.bias out of the weights: it adds the same number to every score; or add it as `shift`",
            )
        missing = sorted(set(about["missing_keys"]) - set(absent))
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
        quiet()
        net.save_pretrained(folder, safe_serialization=True)

    def export_scores(
        self,
        net: Any,
        weight: Tensor,
        pad: int | None,
        folder: Path,
        names: Sequence[str] = (),
        bias: Sequence[float] = (),
    ) -> None:
        from transformers import AutoModelForSequenceClassification

        quiet()
        config = copy.deepcopy(net.config)
        config.num_labels, config.pad_token_id = len(weight), pad
        if names:
            config.id2label = dict(enumerate(names))
            config.label2id = {name: i for i, name in enumerate(names)}
        setattr(config, AT, "answer")
        setattr(config, BIAS, list(bias))
        with torch.random.fork_rng(devices=[]):
            scores = AutoModelForSequenceClassification.from_config(config)
        getattr(scores, scores.base_model_prefix).load_state_dict(getattr(net, net.base_model_prefix).state_dict())
        scores.score.weight.data.copy_(weight)
        scores.to(net.dtype).save_pretrained(folder, safe_serialization=True)

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

    def output(self, net: Any) -> tuple[Tensor, Tensor | None] | None:
        layer = net.get_output_embeddings()
        if layer is None:  # a reward model's network
            return None
        return layer.weight, getattr(layer, "bias", None)

    def is_product(self, net: Any) -> bool:
        """Whether the output layer is one plain product, and the network returns what that layer gives, unchanged."""
        layer = net.get_output_embeddings()
        if layer is None:
            return False
        return {name for name, _ in layer.named_parameters()} <= {"weight", "bias"} and returns_its_outputs(net, layer)

    # -- rows

    def states(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        hidden_BLH = trunk(net, input_ids=sequences(batch), use_cache=False).last_hidden_state
        rows_N, after_N = _places(batch)
        return {side: hidden_BLH[rows_N, after_N - int(side == "before")] for side in sides}

    def packed_states(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        """transformers' masks let tokens read one another only where positions rise by one, if there is no other mask."""
        length_B = batch.prompt_length_B + batch.length_B
        laid = lay(length_B)
        if len(laid.position_RW) == len(batch):  # no two rows fit into one; this also keeps the faster causal kernel
            return self.states(net, batch, sides)
        ids_RW = laid.spread(sequences(batch), length_B)
        given = {"input_ids": ids_RW, "position_ids": laid.position_RW, "attention_mask": None, "use_cache": False}
        hidden_SH = trunk(net, **given).last_hidden_state.flatten(0, 1)
        rows_N, after_N = _places(batch)
        at_N = laid.first_B[rows_N] + after_N
        return {side: hidden_SH[at_N - int(side == "before")] for side in sides}

    def logits(self, net: Any, batch: Batch) -> Tensor:
        ids_BL = sequences(batch)
        rows_N, after_N = _places(batch)
        logits_BLV = net(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), use_cache=False).logits
        return cast(Tensor, logits_BLV[rows_N, after_N - 1])

    # -- decoding

    def prefill(self, net: Any, prompts: Sequence[Sequence[int]], *, filler: int, fused: bool) -> Decoding:
        if net not in _CACHES_AGREE:
            _CACHES_AGREE[net] = self._cache_agrees(net, fused)
        return self._begin(net, prompts, filler, fused, cached=_CACHES_AGREE[net])

    def step(self, net: Any, state: Decoding, ids_B: Tensor) -> Tensor:
        assert isinstance(state, CausalDecoding)
        return self._read(net, state, ids_B[:, None])

    def _begin(
        self, net: Any, prompts: Sequence[Sequence[int]], filler: int, fused: bool, *, cached: bool
    ) -> CausalDecoding:
        device = next(net.parameters()).device
        width = max(len(prompt) for prompt in prompts)
        ids_BP = torch.tensor([[filler] * (width - len(p)) + list(p) for p in prompts], dtype=torch.long, device=device)
        pad_B = torch.tensor([width - len(p) for p in prompts], device=device)
        state = CausalDecoding(pad_B, fused, None if cached else ids_BP[:, :0])
        self._read(net, state, ids_BP)
        return state

    @torch.no_grad()
    def _cache_agrees(self, net: Any, fused: bool) -> bool:
        """Whether a short row beside a longer one is read with a cache as it is read alone and whole.

        Networks without a cache, and those whose positions or masks do not follow the padding, do not agree.
        """
        long = max(1, min(6, self.context(net) - 2))
        layer = self.output(net)
        assert layer is not None
        vocabulary = len(layer[0])
        prompts = [[at % vocabulary for at in range(1, 1 + length)] for length in ((long + 1) // 2, long)]
        step_B = torch.zeros(2, dtype=torch.long, device=next(net.parameters()).device)
        whole = self._begin(net, prompts, 0, fused, cached=False)
        try:
            read = self._begin(net, prompts, 0, fused, cached=True)
            pairs = [(read.logits_BV, whole.logits_BV)]
            for _ in range(min(2, self.context(net) - long)):
                pairs.append((self.step(net, read, step_B), self.step(net, whole, step_B)))
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False
        exact = all(p.dtype == torch.float32 for p in net.parameters()) and not torch.is_autocast_enabled(
            step_B.device.type
        )
        tolerance = 1e-3 if exact else 5e-2
        return all(float((a - b).abs().max()) <= tolerance * float(b.abs().max()) for a, b in pairs)

    def _read(self, net: Any, state: CausalDecoding, ids_BL: Tensor) -> Tensor:
        state.seen += ids_BL.shape[1]
        if state.ids_BL is not None:
            state.ids_BL = torch.cat([state.ids_BL, ids_BL], 1)
            return self._read_whole(net, state, state.ids_BL)
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
            self._predict(net, state, out.last_hidden_state[:, -1])
        else:
            out = net(**given, logits_to_keep=1)
            state.logits_BV = out.logits[:, -1].float()
        state.cache = out.past_key_values
        return state.logits_BV

    def _read_whole(self, net: Any, state: CausalDecoding, ids_BL: Tensor) -> Tensor:
        """Read each row from its beginning, padded on the right, as `states` and `logits` do."""
        at_BL = torch.arange(state.seen, device=ids_BL.device) + state.pad_B[:, None]
        ids_BL = ids_BL.gather(1, at_BL.clamp(max=state.seen - 1))
        rows_B, last_B = torch.arange(len(ids_BL), device=ids_BL.device), state.seen - 1 - state.pad_B
        if state.fused:
            self._predict(net, state, trunk(net, input_ids=ids_BL, use_cache=False).last_hidden_state[rows_B, last_B])
        else:
            out = net(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), use_cache=False)
            state.logits_BV = out.logits[rows_B, last_B].float()
        return state.logits_BV

    def _predict(self, net: Any, state: CausalDecoding, hidden_BH: Tensor) -> None:
        layer = self.output(net)
        assert layer is not None
        weight, bias = layer
        state.hidden_BH = hidden_BH
        state.logits_BV = torch.nn.functional.linear(hidden_BH.to(weight.dtype), weight, bias).float()


def _refuse_adapter(folder: Path) -> None:
    """Refuse the folder of a phase that trained an adapter, whose weights are beside those of the base."""
    about = folder / "role.json"
    if about.is_file() and '"base_model.model.' in about.read_text(encoding="utf-8"):
        raise ExperimentError(
            f"{folder} holds an adapter beside the weights of its base", "merge it first: hookline export RUN DIR; then name DIR"
        )


_CACHES_AGREE: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""For networks that have decoded: whether they decode with a cache; the others read each row whole at every step."""


class CausalDecoding(Decoding):
    """Prompts padded on the left, and the keys and values of all tokens read so far."""

    def __init__(self, pad_B: Tensor, fused: bool, ids_BL: Tensor | None) -> None:
        self.pad_B, self.fused = pad_B, fused
        self.ids_BL = ids_BL
        """All tokens so far, where there is no cache."""
        self.seen = 0
        """Columns read so far, padding included."""
        self.cache: Any = None

    @property
    def movable(self) -> bool:  # type: ignore[override]
        parts = getattr(self.cache, "layers", ())
        return self.ids_BL is not None or all(hasattr(part, "batch_select_indices") for part in (self.cache, *parts))

    def rows(self, index_N: Tensor) -> CausalDecoding:
        made = copy.copy(self)
        if self.ids_BL is not None:
            made.ids_BL = self.ids_BL[index_N]
        else:
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


def _taken_score(net: Any, folder: str | Path) -> nn.Linear:
    """The score layer of a network for sequence classification, which the network then lacks."""
    layer = getattr(net, SCORE, None)
    if not isinstance(layer, nn.Linear):
        raise ExperimentError(
            f"{type(net).__name__} of {folder} has no linear layer '{SCORE}' that reads the last token",
            "use a reward model that reads from left to right and has one",
        )
    setattr(net, SCORE, nn.Identity())
    return layer


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
