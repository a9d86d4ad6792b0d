"""Packing: rows laid end to end give the figures and gradients of padded rows, whatever is beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

import hookline
from hookline import Batch, ExperimentError, HooklineError, NumbersError
from hookline.batch.laid import Places, lay
from hookline.loop.loop import PhaseLoop
from hookline.models.causal import Causal
from hookline.models.load import never_drop_out
from hookline.models.role import Role
from hookline.training.packing import pack
from hookline.training.statistics import forward, split_by_tokens, statistics

V, CONTEXT = 300, 64
TEXT = {
    "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 48, "max_position_embeddings": CONTEXT, "head_dim": 16, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 0,
}  # fmt: skip
NO_HEAD_DIM = {k: v for k, v in TEXT.items() if k != "head_dim"}
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
MIXED = ["sliding_attention", "full_attention"]
PACKED = {
    "gpt2": tf.GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT, **TOKENS),
    "llama": tf.LlamaConfig(**TEXT),
    "qwen2": tf.Qwen2Config(**NO_HEAD_DIM, use_sliding_window=True, sliding_window=6, layer_types=MIXED),
    "qwen3": tf.Qwen3Config(**TEXT),
    "gemma3": tf.Gemma3TextConfig(**TEXT, sliding_window=6, layer_types=MIXED),
    "phi3": tf.Phi3Config(**NO_HEAD_DIM, sliding_window=6),
    "gemma2": tf.Gemma2Config(**TEXT, sliding_window=6, final_logit_softcapping=30.0),
}
PADDED = {
    "mamba": tf.MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=1, state_size=8, **TOKENS),
    "bart": tf.BartConfig(
        vocab_size=V, d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, **TOKENS
    ),
    "falcon_h1": tf.FalconH1Config(**TEXT, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8),
}
LENGTHS = (CONTEXT, 1, 40, 23, 24, 2, 17, 9, 1, 31)
Lab = Callable[..., PhaseLoop]


def role_of(config: Any, packing: bool | str = False, notice: Callable[[str], None] = print) -> Role:
    family = Causal(Causal.Config())
    family.instance = "causal"
    torch.manual_seed(0)
    net = tf.AutoModelForCausalLM.from_config(config).eval()
    never_drop_out(net)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3 if p.dim() > 1 else 1)  # far from uniform
    role = Role("policy", net, family)
    role.add_head("value", lambda width: nn.Linear(width, 1), "before", (0,))
    role.add_head("score", lambda width: nn.Linear(width, 1), "after", (0,))
    pack([role], packing, notice)
    return role


def batch_of(lengths: Sequence[int], seed: int = 0) -> Batch:
    """Rows of these lengths; a third is the prompt, and one token in seven is not scored."""
    generator = torch.Generator().manual_seed(seed)
    length_B = torch.tensor(lengths, dtype=torch.long)
    B, L = len(lengths), max(lengths, default=1)
    ids_BL = torch.randint(V, (B, L), generator=generator)
    prompt_B = (length_B // 3).clamp(min=1)
    at_T = torch.arange(max(L - 1, 1))
    return Batch(
        prompt_ids_BP=ids_BL[:, : int(prompt_B.max()) if B else 1],
        prompt_length_B=prompt_B,
        token_ids_BT=torch.randint(V, (B, len(at_T)), generator=generator),
        length_B=length_B - prompt_B,
        mask_BT=(at_T < (length_B - prompt_B)[:, None]) & (at_T % 7 != 3),
        group_B=torch.arange(B),
        sample_B=torch.arange(B),
        records=({},) * B,
        decode=lambda ids: "",
    )


WANT = ("logprobs", "entropy", "value", "score")


def figures(role: Role, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Figures of a batch, and the gradients of a sum of them."""
    found = forward(role, batch, WANT)
    for p in role.parameters().values():
        p.grad = None
    sum((x * torch.linspace(0.5, 1.5, x.numel()).view(x.shape)).sum() for x in found.values()).backward()
    return found, {name: p.grad for name, p in role.parameters().items() if p.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    """Equal to a share of the largest entry of all."""
    assert found.keys() == expected.keys()
    largest = max(float(x.detach().abs().max()) for x in expected.values())
    assert largest > 0
    worst = max(float((found[name] - expected[name]).detach().abs().max()) for name in expected)
    assert float(worst) <= tolerance * max(1.0, largest), f"{worst} of {largest}"


# -- networks


@pytest.mark.parametrize("name", PACKED)
def test_figures_and_gradients_are_those_of_padded_rows(name: str) -> None:
    batch = batch_of(LENGTHS)
    padded, packed = role_of(PACKED[name]), role_of(PACKED[name], True)
    assert packed.packing > 0
    assert len(lay(batch.prompt_length_B + batch.length_B).position_RW) < len(batch), "rows are packed"
    for one, other in zip(figures(packed, batch), figures(padded, batch)):
        assert_close(one, other)


@pytest.mark.parametrize("name", PACKED)
def test_a_row_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    role = role_of(PACKED[name], True)
    batch = batch_of(LENGTHS)
    for changed in ([0], [2, 6], [1, 3, 4, 5, 7, 8, 9]):
        other = replace(batch, token_ids_BT=batch.token_ids_BT.clone(), prompt_ids_BP=batch.prompt_ids_BP.clone())
        other.token_ids_BT[changed] = (other.token_ids_BT[changed] + 1) % V
        other.prompt_ids_BP[changed] = (other.prompt_ids_BP[changed] + 5) % V
        kept = [row for row in range(len(batch)) if row not in changed]
        with torch.no_grad():
            one, two = (forward(role, rows, WANT) for rows in (batch, other))
        for figure in WANT:
            assert torch.equal(one[figure][kept], two[figure][kept]), "bit for bit: what is masked counts 0"


@pytest.mark.parametrize("name", PADDED)
def test_a_network_that_mixes_rows_is_padded_with_a_notice_or_refused(name: str) -> None:
    notices: list[str] = []
    with pytest.raises(ExperimentError, match=r"rows of role 'policy' .* cannot be laid end to end") as caught:
        role_of(PADDED[name], True)
    assert "packing: auto" in (caught.value.hint or "")
    role = role_of(PADDED[name], "auto", notices.append)
    assert role.packing == 0
    assert len(notices) == 1
    assert notices[0].endswith("they are padded")
    batch = batch_of(LENGTHS)
    for one, other in zip(figures(role, batch), figures(role_of(PADDED[name]), batch)):
        assert_close(one, other)


def test_one_role_that_cannot_pack_leaves_all_padded() -> None:
    roles = [role_of(PACKED["gpt2"]), role_of(PADDED["mamba"])]
    notices: list[str] = []
    pack(roles, "auto", notices.append)
    assert [role.packing for role in roles] == [0, 0]
    pack(roles, False, notices.append)
    assert len(notices) == 1


def test_a_network_in_half_precision_is_tried_too() -> None:
    role = role_of(PACKED["qwen3"])
    role.net.to(torch.bfloat16)
    pack([role], True, print)
    assert role.packing
    mixing = role_of(PADDED["falcon_h1"])
    mixing.net.to(torch.bfloat16)
    with pytest.raises(ExperimentError, match="cannot be laid end to end"):
        pack([mixing], True, print)


def test_the_first_batch_finds_what_the_trial_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    role = role_of(PACKED["gpt2"], True)
    assert role.check_fused()
    right = Causal.packed_states

    def wrong(self: Causal, net: Any, batch: Batch, sides: Any) -> Any:
        return {side: states * 1.01 for side, states in right(self, net, batch, sides).items()}

    monkeypatch.setattr(Causal, "packed_states", wrong)
    with pytest.raises(NumbersError, match=r"computes other states for packed rows .* differ by 0\.01"):
        forward(role, batch_of(LENGTHS), ("logprobs",))


@pytest.mark.parametrize(
    "lengths", [(), (7,), (1, 1, 1), (2, 2, 2), (CONTEXT, CONTEXT), (CONTEXT, 1, 1), (CONTEXT, 2)], ids=str
)
@torch.no_grad()
def test_odd_batches(lengths: tuple[int, ...]) -> None:
    batch = batch_of(lengths)
    padded, packed = role_of(PACKED["llama"]), role_of(PACKED["llama"], True)
    for micro in (1, 60, 10**6):
        one, two = (statistics(role, batch, WANT, micro) for role in (packed, padded))
        for figure in WANT:
            torch.testing.assert_close(one[figure], two[figure], atol=1e-6, rtol=1e-6)


# -- layout


def test_rows_are_placed_without_overlap_and_parts_respect_their_limit() -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 60, (200,), generator=generator).tolist()
    batch = batch_of(lengths)
    length_B = batch.prompt_length_B + batch.length_B
    laid = lay(length_B)
    used = [at for row, n in enumerate(lengths) for at in range(int(laid.first_B[row]), int(laid.first_B[row]) + n)]
    assert len(used) == len(set(used)) == sum(lengths)
    assert all(int(laid.first_B[row]) % 59 + n <= 59 for row, n in enumerate(lengths) if max(lengths) == 59)
    assert laid.position_RW.numel() < 1.05 * sum(lengths), "little space is left"
    units = [[row, row + 1] for row in range(0, 200, 2)]
    for packing, micro in ((1, 1500), (10**6, 700)):
        parts = split_by_tokens(batch, micro, units, packing)
        assert sorted(row for part in parts for row in part) == list(range(200))
        assert all(lay(length_B[part]).position_RW.numel() <= micro for part in parts)
        assert all({row, row ^ 1} <= set(part) for part in parts for row in part)


def test_rows_are_packed_with_rows_of_like_length() -> None:
    lengths = [60] * 30 + [5] * 400
    parts = split_by_tokens(batch_of(lengths), 16384, packing=16)
    assert [{lengths[row] for row in part} for part in parts] == [{60}, {5}]
    assert len(split_by_tokens(batch_of(lengths), 16384, packing=60)) == 1
    assert Places(8).with_rows([5, 4, 3, 4]).tokens == 16


# -- losses


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose rows have very different lengths."""
    folder = tmp_path_factory.mktemp("words")
    names = "open close read write file list value name return error string number path time data key".split()
    sizes = (1, 1, 2, 18, 3, 1, 9, 2)
    texts = [" ".join(names[(i + j) % 16] for j in range(n)) for i, n in enumerate(sizes)]
    rows = [
        {"prompt": text, "completion": f"{names[i]}.", "chosen": f"{names[i]}.", "rejected": f"{text[:30]} no."}
        for i, text in enumerate(texts)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def phases(words: Path) -> dict[str, dict[str, Any]]:
    path = str(words / "rows.jsonl")
    pairs = {"use": "preferences", "path": path, "rows": 6}
    drawn = {"use": "generate", "prompts": path, "rows": 6, "samples_per_prompt": 2, "max_new_tokens": 6}
    return {
        "sft": {"rollout": {"use": "dataset", "path": path, "rows": 8}, "update": {"use": "sft"}},
        "lora": {
            "rollout": {"use": "dataset", "path": path, "rows": 8},
            "update": {"use": "sft"},
            "read": {"adapter": {"use": "lora", "rank": 2}},
        },
        "dpo": {"rollout": pairs, "update": {"use": "dpo"}},
        "reward model": {
            "rollout": pairs,
            "update": {"use": "bradley-terry"},
            "read": {"head": {"use": "reward", "std": 0.2}},
        },
        "ppo": {
            "rollout": drawn,
            "reward": "length",
            "advantage": "gae",
            "wrap": "kl-penalty",
            "update": {"use": "ppo", "entropy_bonus": 0.01, "minibatches": 2},
        },
    }


def one_step(lab: Lab, phase: dict[str, Any], **options: Any) -> tuple[dict[str, Tensor], dict[str, float], PhaseLoop]:
    """The gradients of a step's optimiser steps, without changing a weight; its figures; and the phase."""
    loop = lab(**{**phase, "update": {**phase["update"], "lr": 1e-3, "grad_clip": 1e9, **options}})
    trainer = loop.phase.trainer
    assert trainer is not None
    for role in trainer.trained:
        with torch.no_grad():  # an adapter's second factor is zero at first
            for name, p in role.trainable().items():
                p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    caught: dict[str, Tensor] = {}

    def catch(share: float) -> float:
        n = len(caught)
        caught.update({f"{n} {name}": p.grad.clone() for name, p in trainer.parameters.items() if p.grad is not None})
        return 0.0

    trainer.optimiser.step = catch  # type: ignore[method-assign]
    batch: Any = loop.hooks.rollout(loop.ctx)
    if "reward" in phase or phase["rollout"]["use"] == "preferences":
        batch = loop.hooks.score(loop.ctx, batch)
    if loop.planned.advantage_by:
        batch = loop.hooks.advantage(loop.ctx, batch)
    loop.hooks.update(loop.ctx, batch)
    return caught, dict(loop.phase.metrics.collect()[0]), loop


@pytest.mark.parametrize("build", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["sft", "lora", "dpo", "reward model", "ppo"])
def test_a_step_of_each_kind_is_that_of_padded_rows(lab: Lab, words: Path, name: str, build: str) -> None:
    phase = {"model": {"build": build, "layers": 1, "width": 32, "heads": 2, "context": 128}, **phases(words)[name]}
    padded, figures_padded, _ = one_step(lab, phase)
    for micro in (10**6, 50):
        packed, figures_packed, loop = one_step(lab, phase, packing=True, micro_tokens=micro)
        assert all(role.packing for role in loop.phase.roles.values()), "the reference and the critic too"
        assert_close(packed, padded)
        for figure in ("loss", "grad_norm"):
            assert figures_packed[figure] == pytest.approx(figures_padded[figure], rel=2e-6, abs=1e-6)


def test_the_option_says_what_it_accepts(lab: Lab, words: Path) -> None:
    phase = phases(words)["sft"]
    _, _, loop = one_step(lab, phase)
    assert loop.phase.roles["policy"].packing == 0, "off by default"
    with pytest.raises(HooklineError, match="packing"):
        lab(**{**phase, "update": {"use": "sft", "packing": "yes"}})


STOP = """
from hookline import Component, hookimpl

class Stop(Component):
    \"\"\"Ends the run before its fourth update, until the run is resumed.\"\"\"

    name = "stop"
    calls = 0

    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        self.calls += 1
        if self.calls == 4 and ctx.run.directory.name == "half" and not ctx.run.resumed:
            raise RuntimeError("stopped")
        return (yield)
"""


def test_a_resumed_run_is_the_same_bit_for_bit(words: Path, tmp_path: Path) -> None:
    (tmp_path / "stop.py").write_text(STOP)
    experiment = {
        "name": "resumed",
        "seed": 3,
        "tokenizer": {"train": "bpe", "on": str(words / "rows.jsonl"), "vocabulary": 290},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "heads": 2, "context": 128},
        "phases": [
            {
                "name": "dpo",
                "rollout": {"use": "preferences", "path": str(words / "rows.jsonl"), "rows": 4},
                "wrap": "stop",
                "update": {"use": "dpo", "lr": 1e-2, "packing": True, "micro_tokens": 100},
                "steps": 5,
                "save": {"every": 2},
            }
        ],
        "trackers": [],
        "plugins": [str(tmp_path / "stop.py")],
    }
    with pytest.raises(HooklineError, match="stopped"):
        hookline.run(experiment, out=tmp_path / "half")
    rows = []
    for name in ("half", "whole"):
        run = hookline.run(experiment, out=tmp_path / name)
        rows.append([(row["metrics"]["loss"], row["metrics"]["grad_norm"]) for row in run.rows()])
        run.close()
    assert rows[0] == rows[1]
    assert len(rows[0]) == 5
