"""Writes docs/models.md: `make models`, about ten minutes. Every causal model type of the installed transformers is built
tiny, saved, and loaded as an experiment loads a model folder; then Hookline's figures are compared with the network's own.

`python docs/make_models.py gpt2 llama` checks these types and prints their rows. Each type has a process of its own, with
limits on its memory and time, because some types ignore sizes that they are given.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hookline import Completions, HooklineError, NumbersError, Sampling, pad_rows
from hookline.batch.stages import Batch
from hookline.inference.drawing import COMPARED_ROWS, Drawing
from hookline.inference.local import Local
from hookline.models.causal import Causal, quiet
from hookline.models.load import never_drop_out
from hookline.models.role import Role
from hookline.training.packing import pack
from hookline.training.statistics import forward, statistics

PAGE = Path(__file__).with_name("models.md")
TYPES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
MEMORY, SECONDS = 6 << 30, 120
EXACT = 2e-3
"""The largest accepted difference of a log-prob, in nats, and of a gradient, as a share of its largest entry.

Right types stay below 1e-4, except where a network's own single step differs from its whole row (zamba2, nemotron_h).
"""

# ------------------------------------------------------------------------------------------------ tiny configs

V, WIDTH, HEADS, LAYERS, CONTEXT = 64, 32, 4, 4, 64
SIZES = (
    (V, "vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size audio_vocab_size"),
    (WIDTH, "hidden_size d_model n_embd dim emb_dim embedding_size embedding_dim hidden_size_global intermediate_size "
    "ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner dff dim_ff ffn_hidden_size expert_ffn_hidden_size "
    "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size shared_intermediate_size "
    "moe_shared_expert_intermediate_size dense_intermediate_size intermediate_size_mlp d_inner feed_forward_size "
    "word_embed_proj_dim lru_width attention_hidden_size backbone_hidden_size input_embedding_size "
    "output_embedding_size router_hidden_size mlp_hidden_size dim_model_base"),
    (HEADS, "num_attention_heads n_head num_heads n_heads attention_heads decoder_attention_heads "
    "encoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads swa_num_attention_heads "
    "linear_num_heads linear_num_value_heads num_experts n_routed_experts num_local_experts "
    "moe_num_experts num_query_groups"),
    (16, "index_n_heads"),
    (2, "num_key_value_heads num_kv_heads kv_n_heads swa_num_key_value_heads linear_num_key_heads num_experts_per_tok "
    "num_experts_per_token moe_topk moe_top_k moe_k index_topk index_topk_blocks zero_expert_num o_groups "
    "laurel_rank num_codebooks centroid_intermediate_top_k expand mamba_expand num_logits_to_keep"),
    (1, "n_group topk_group num_expert_group n_groups mamba_n_groups mamba_ngroups n_shared_experts num_shared_experts "
    "moe_num_shared_experts first_k_dense_replace num_dense_layers num_nextn_predict_layers"),
    (LAYERS, "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers num_encoder_layers "
    "num_decoder_layers num_blocks max_window_layers"),
    (CONTEXT, "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions "
    "model_max_length max_source_positions"),
    (8, "head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim index_head_dim linear_key_head_dim linear_value_head_dim "
    "linear_head_dim swa_head_dim global_head_dim kv_channels d_kv dim_head d_head attention_head_size rotary_dim "
    "kv_lora_rank q_lora_rank o_lora_rank state_size ssm_state_size mamba_d_state sliding_window sliding_window_size "
    "attention_window_size attention_chunk_size local_attention window_size chunk_size mamba_chunk_size "
    "time_step_rank mamba_dt_rank adapter_rank hidden_size_per_layer_input gated_norm_rank index_block_size "
    "num_centroids rel_extent query_pre_attn_scalar block_size hc_lowrank ple_embed_dim "
    "log_scaling_n_floor floor_scale"),
)  # fmt: skip
SIZE = {name: size for size, names in SIZES for name in names.split()}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 1, "sep_token_id": 2,
        "cls_token_id": 1, "forced_eos_token_id": 2, "eod_token_id": 2, "mask_token_id": 3}  # fmt: skip
MIXED = ["sliding_attention", "full_attention"] * 2
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "attn_layer_indices": [1, 3]},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8, "layers_block_type": ["mamba", "attention"] * 2},
    "mamba2": {"num_heads": 8},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 8},
    "blt": {"encoder_hash_byte_group_vocab": 64, "encoder_hash_byte_group_size": [3, 4]},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "topk_group": 1, "n_group": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {"layer_types": MIXED, "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 4},
    "zaya": {"num_experts_per_tok": 1},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_theta": 1e4, "rope_type": "default"}}},
    "qwen4_exp_text": {"indexer_n_heads": 16, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
                       "indexer_compress_ratio": 2, "ngram_vocab_size_base": 64, "split_ngram_parts": 1},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_hidden_size": 64,
              "attention_head_dim": 16},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "hybrid_layer_ids": [1, 3],
               "attention_hidden_size": 64, "attention_head_dim": 16, "mamba_headdim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "attention_layers": ["global", "local"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "xmod": {"default_language": "en_XX"},
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"] * 2,
                 "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "num_buckets": 2, "hash_seed": 1},
}  # fmt: skip
"""What a type needs besides: sizes that depend on each other."""


DECODER = ", is_decoder: true"
"""Ends the row of a type that reads both sides unless its config says otherwise."""


def tiny(kind: str) -> Any:
    """A small config of a type, with the type's own defaults for all that is not a size."""
    kind, decoder, _ = kind.partition(DECODER)
    cls = CONFIG_MAPPING[kind]
    return cls(**_small(cls().to_dict(), OWN.get(kind, {})), **({"is_decoder": True} if decoder else {}))


def kinds() -> list[str]:
    """Every type, and once more those that read from left to right only if their config says so."""
    found = []
    for kind in TYPES:
        found.append(kind)
        with contextlib.suppress(Exception):
            if CONFIG_MAPPING[kind]().to_dict().get("is_decoder") is False:
                found.append(kind + DECODER)
    return found


def _small(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    latent = "kv_lora_rank" in defaults  # then all heads have keys and values of their own
    for name, value in defaults.items():
        if latent and name == "num_key_value_heads":
            found[name] = HEADS
        elif value is None and name in ("head_dim", "num_key_value_heads"):
            found[name] = SIZE[name]
        elif isinstance(value, Mapping) and name.endswith("_config"):
            found[name] = _small(value, {})
        elif name in ENDS and isinstance(value, int | list):
            found[name] = ENDS[name]
        elif name in SIZE and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            found[name] = SIZE[name]
    return {**found, **own}


def build(kind: str) -> Any:
    """A tiny network whose weights are far from uniform, so that an error in a mask or a position shows."""
    torch.manual_seed(0)
    config = tiny(kind)
    net = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                spread = float(parameter.std())
                if 0 < spread < 0.2:
                    parameter.mul_(0.2 / spread)
            if not bool(parameter.any()):  # equal values would leave choices to chance
                parameter.normal_(0, 0.1)
    return net


# ------------------------------------------------------------------------------------------------ the checks


@dataclass
class Row:
    """One line of the page."""

    kind: str
    network: str = ""
    verdict: str = "not built"
    """right, refused, wrong, or not built."""
    logprobs: float = 0.0
    """The largest difference of a log-prob from that of the network itself, in nats."""
    drawn: float = 0.0
    """The largest difference of the log-prob of a drawn token."""
    gradient: float = 0.0
    """The largest difference of a gradient, as a share of its largest entry."""
    decodes: str = "whole"
    """How it is read while it decodes: the name of one of the ways of `hookline/models`, in small letters."""
    fused: bool = True
    """Whether log-probs are computed from states, without logits."""
    packed: float | None = None
    """The largest difference of a log-prob, or share of a gradient, where rows are laid end to end; None: they are padded."""
    said: str = ""
    """The sentence of the refusal, or why the type was not built."""


def check(kind: str) -> Row:
    row = Row(kind)
    try:
        net = build(kind)
    except Exception as err:
        row.said = _short(err)
        return row
    row.network = type(net).__name__
    size = sum(parameter.numel() for parameter in net.parameters())
    if size > 20_000_000:
        row.said = f"its smallest config has {size / 1e6:.0f} million parameters"
        return row
    row.verdict, folder = "wrong", ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            net.save_pretrained(folder, safe_serialization=True)
            family = Causal(Causal.Config())
            family.instance = "causal"
            role = Role("policy", family.load(folder), family)
        never_drop_out(role.net)
        never_drop_out(net)
        _compare(role, net, row)
        if max(row.logprobs, row.drawn, row.gradient, row.packed or 0.0) <= EXACT:
            row.verdict = "right"
    except HooklineError as err:
        row.verdict, row.said = "refused", err.message.replace(folder, "DIR")
    except Exception as err:
        row.said = _short(err)
    return row


def _compare(role: Role, net: Any, row: Row) -> None:
    """Rows of different length, drawn and read together by Hookline, each alone by the network itself."""
    prompts = [list(range(5, 5 + length)) for length in (1, 4, 9, 3, 2, 6)]
    B, sampling = len(prompts), Sampling(temperature=0.8)
    sample_B, greedy_B = torch.arange(B), torch.tensor([False, True] * (B // 2))

    def draw(eos: int) -> Completions:
        engine = Local(Local.Config())
        engine.instance = "local"
        asking = Asking(role)
        engine.setup(asking)
        drawing = Drawing(engine, (eos,))  # compares what it draws first, as a phase does
        return drawing.draw(asking, prompts, sample_B, sampling=sampling, max_new_tokens=12, seed=7, greedy_B=greedy_B)

    eos = int(draw(V - 1).token_ids_BT[2, 2])  # so that some rows end early, and leave the others
    found = draw(eos)
    drawn = [
        (found.token_ids_BT[at, :length], found.behaviour.logprobs_BT[at, :length])
        for at, length in enumerate(found.length_B.tolist())
    ]
    row.fused = role.check_fused()
    row.decodes = type(role.prefill(prompts, 0)).__name__.lower()
    batch = _batch(prompts, [ids_T for ids_T, _ in drawn], role)
    theirs = [_own(net, prompt, ids_T) for prompt, (ids_T, _) in zip(prompts, drawn)]
    if not all(bool(torch.isfinite(one).all()) for one in theirs):
        raise NumbersError("the tiny network itself gives log-probs that are not finite")
    ours_BT = statistics(role, batch, ("logprobs",), 16384).logprobs_BT
    for at, ((ids_T, logprobs_T), own_TV) in enumerate(zip(drawn, theirs)):
        plain_T = own_TV.log_softmax(-1).gather(1, ids_T[:, None])[:, 0]
        cold_T = (own_TV / sampling.temperature).log_softmax(-1).gather(1, ids_T[:, None])[:, 0]
        row.logprobs = max(row.logprobs, float((ours_BT[at, : len(ids_T)] - plain_T).abs().max()))
        row.drawn = max(row.drawn, float((logprobs_T - cold_T).abs().max()))
        if greedy_B[at]:  # the likeliest token, unless two are as likely
            chosen_T = own_TV.gather(1, ids_T[:, None])[:, 0]
            row.drawn = max(row.drawn, float((own_TV.max(-1).values - chosen_T).abs().max()))
    answers = [ids_T for ids_T, _ in drawn]
    row.gradient = _gradients(role, net, batch, prompts, answers)
    pack([role], "auto", lambda notice: None)
    if role.packing:
        beside_BT = statistics(role, batch, ("logprobs",), 16384).logprobs_BT
        apart = float((beside_BT - ours_BT)[batch.mask_BT].abs().max())
        role.net.zero_grad()
        net.zero_grad()
        row.packed = max(apart, _gradients(role, net, batch, prompts, answers))


class Asking:
    """What an engine and `Drawing` need of a phase."""

    instance = "models"
    tokenizer = SimpleNamespace(decode=str)

    def __init__(self, role: Role) -> None:
        self.role = role

    def role_named(self, name: str) -> Role:
        return self.role

    def wait_for(self, coroutine: Any, who: str) -> Any:
        return asyncio.run(coroutine)


def _gradients(role: Role, net: Any, batch: Batch, prompts: Sequence[list[int]], answers: Sequence[Tensor]) -> float:
    forward(role, batch, ("logprobs",))["logprobs"].sum().backward()
    for prompt, ids_T in zip(prompts, answers):
        own = _own(net, prompt, ids_T, grad=True).log_softmax(-1).gather(1, ids_T[:, None])
        own.sum().backward()
    mine, most, scale = dict(role.net.named_parameters()), 0.0, 0.0
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            found = mine[name].grad
            found = torch.zeros_like(parameter) if found is None else found
            most = max(most, float((found - parameter.grad).abs().max()))
            scale = max(scale, float(parameter.grad.abs().max()))
    return most / scale if scale else float("inf")


def _own(net: Any, prompt: list[int], answer: Tensor, grad: bool = False) -> Tensor:
    """The network's logits [T, V] before each token of an answer, one row alone."""
    ids_1L = torch.tensor([[*prompt, *answer.tolist()]])
    with torch.set_grad_enabled(grad):
        logits: Tensor = net(input_ids=ids_1L, attention_mask=torch.ones_like(ids_1L), use_cache=False).logits
    return logits[0, len(prompt) - 1 : -1].float()


def _batch(prompts: Sequence[list[int]], answers: Sequence[Tensor], role: Role) -> Batch:
    prompt_ids_BP, prompt_length_B = pad_rows(prompts)
    token_ids_BT, length_B = pad_rows(answers)
    return Batch(
        prompt_ids_BP=prompt_ids_BP,
        prompt_length_B=prompt_length_B,
        token_ids_BT=token_ids_BT,
        length_B=length_B,
        mask_BT=torch.arange(token_ids_BT.shape[1]) < length_B[:, None],
        group_B=length_B * 0,
        sample_B=torch.arange(len(prompts)),
        records=({},) * len(prompts),
        decode=lambda ids: "",
    )


def _short(err: BaseException) -> str:
    line = next((line.strip() for line in str(err).splitlines() if line.strip()), "")
    return f"{type(err).__name__}: {line}"[:200]


# ------------------------------------------------------------------------------------------------ many types


def rows(wanted: Sequence[str]) -> Iterator[Row]:
    """The row of each type, computed in a forked process."""
    context = multiprocessing.get_context("fork")
    build("llama")  # so that each process begins with everything imported
    for kind in wanted:
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(kind, send))
        child.start()
        send.close()
        try:
            yield (
                Row(**receive.recv()) if receive.poll(SECONDS) else Row(kind, said=f"not done after {SECONDS} seconds")
            )
        except EOFError:
            yield Row(kind, said="its process ended; it may need more memory")
        finally:
            child.kill()
            child.join()


def _child(kind: str, send: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        send.send(asdict(check(kind)))  # some types print


# ------------------------------------------------------------------------------------------------ the page

HEAD = """<!-- Made by `make models`; edit docs/make_models.py. -->

# Models: every causal type of transformers {version}

Each type that `AutoModelForCausalLM` knows was built from a tiny config with weights far from uniform, saved, and loaded as
`model: {{path: DIR}}` does. Six prompts of 1 to 9 tokens were answered together with up to 12 tokens each, and compared with the
network's own forward pass over each row alone, in float32 on a CPU:

- **log-prob**: the largest difference of a log-prob that an update uses, in nats;
- **drawn**: the largest difference of the log-prob under which a token was drawn, and of a greedy token's logit from the largest;
- **gradient**: the largest difference of a gradient of the summed log-probs, as a share of the gradient's largest entry;
- **decodes**: *slots*, each row in a place of one cache that grows without copies; *padded*, prompts padded on the left and the
  network's own cache, for windows and states; *alone*, the same for each row by itself; *whole* by reading each row again at
  every step, which is slow: the type has no cache, or none of the others gives what the row alone gives;
- **log-probs from**: *states*, without logits in memory, or *logits*, where these are more than one product;
- **packed**: the larger of the log-prob's and the gradient's difference where the six rows are laid end to end
  ([packing.md](packing.md)); *padded* where they are not, because the rows of such a network would read one another.

*right*: no difference above {exact:g}. *refused*: a run ends with the sentence, when it loads the model or in its first draw, and
trains nothing. *not built*: no tiny config was found, with the reason; nothing is known of such a type. A type that reads both
sides unless its config says `is_decoder: true` has a second row. Every run compares its own first draw of each role ({compared} rows), so a
type or a folder that is not here is refused when its decoding differs.

{counts}

| type | network | | log-prob | drawn | gradient | decodes | log-probs from | packed | |
|---|---|---|---|---|---|---|---|---|---|
"""


def page(found: Sequence[Row]) -> str:
    counts = ", ".join(f"{n} {verdict}" for verdict, n in Counter(row.verdict for row in found).most_common())
    packed = sum(row.verdict == "right" and row.packed is not None for row in found)
    head = HEAD.format(
        version=transformers.__version__,
        exact=EXACT,
        compared=COMPARED_ROWS,
        counts=f"{len(found)} rows: {counts}. {packed} of those that are right can be packed.",
    )
    return head + "".join(line(row) + "\n" for row in found)


def line(row: Row) -> str:
    figures = ["", "", "", "", "", ""]
    if row.verdict == "right":
        how = [row.decodes, "states" if row.fused else "logits"]
        how.append("padded" if row.packed is None else f"{row.packed:.0e}")
        figures = [f"{row.logprobs:.0e}", f"{row.drawn:.0e}", f"{row.gradient:.0e}", *how]
    said = row.said.replace("|", "\\|").replace("<", "\\<")
    return f"| {row.kind} | {row.network} | {row.verdict} | {' | '.join(figures)} | {said} |"


def main(wanted: Sequence[str]) -> int:
    unknown = set(wanted) - set(kinds())
    if unknown:
        print(
            f"transformers {transformers.__version__} has no causal type {', '.join(sorted(unknown))}", file=sys.stderr
        )
        return 2
    found = []
    for row in rows(wanted or kinds()):
        print(line(row), flush=True)
        found.append(row)
    if not wanted:
        PAGE.write_text(page(found), encoding="utf-8")
    wrong = [row.kind for row in found if row.verdict == "wrong"]
    if wrong:
        print(f"wrong without a refusal: {', '.join(wrong)}", file=sys.stderr)
    return 6 if wrong else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    quiet()
    sys.exit(main(sys.argv[1:]))
