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
from hookline.models.decoding import fastest
from hookline.models.folder import check_folder
from hookline.models.prompts import Prompts
from hookline.models.reading import CausalDecoding, trunk
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
        B, L = len(batch), int((batch.prompt_length_B + batch.length_B).max()) if len(batch) else 0
        return self._shared(net, batch, sides, B * L, L / 2) or self._alone(net, batch, sides)

    def _alone(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        """Each row by itself, padded to the longest."""
        ids_BL = sequences(batch)
        if set(sides) == {"before"}:  # which the last token of the longest row does not reach
            ids_BL = ids_BL[:, : max(1, ids_BL.shape[1] - 1)]
        hidden_BLH = trunk(net, input_ids=ids_BL, use_cache=False).last_hidden_state
        rows_N, after_N = _places(batch)
        return {side: hidden_BLH[rows_N, after_N - int(side == "before")] for side in sides}

    def _shared(
        self, net: Any, batch: Batch, sides: Collection[str], tokens: int, keys: float
    ) -> Mapping[str, Tensor] | None:
        """With prompts read once, where that is cheaper than `tokens` tokens that attend to `keys` keys each."""
        prompts = Prompts(batch, sides)
        if prompts.pays(net, tokens, keys, lambda some: self._alone(net, some, {"after"})["after"]):
            return prompts.states(net, batch, sides)
        return None

    def packed_states(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        """transformers' masks let tokens read one another only where positions rise by one, if there is no other mask."""
        length_B = batch.prompt_length_B + batch.length_B
        laid = lay(length_B)
        R, W = laid.position_RW.shape
        if len(batch) == R:  # no two rows fit into one; this also keeps the faster causal kernel
            return self.states(net, batch, sides)
        if (found := self._shared(net, batch, sides, R * W, W)) is not None:
            return found
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
        layer = self.output(net)
        assert layer is not None
        head = layer if fused else None
        if net not in _WAYS:
            _WAYS[net] = fastest(net, self.context(net), len(layer[0]), head)
        return _WAYS[net](net, prompts, filler, head)

    def step(self, net: Any, state: Decoding, ids_B: Tensor) -> Tensor:
        assert isinstance(state, CausalDecoding)
        state.append(net, ids_B)
        return state.logits_BV


_WAYS: WeakKeyDictionary[Any, type[CausalDecoding]] = WeakKeyDictionary()
"""For networks that have decoded: how they are read."""


def _refuse_adapter(folder: Path) -> None:
    """Refuse the folder of a phase that trained an adapter, whose weights are beside those of the base."""
    about = folder / "role.json"
    if about.is_file() and '"base_model.model.' in about.read_text(encoding="utf-8"):
        raise ExperimentError(
            f"{folder} holds an adapter beside the weights of its base", "merge it first: hookline export RUN DIR; then name DIR"
        )


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
