"""Networks as they are: adapters on shared or outer layers, capped logits, odd widths, recomputation, damaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import hookline
from hookline import ExperimentError, Sampling
from hookline.config.experiment import ModelSpec
from hookline.inference.decode import decode
from hookline.models import load
from hookline.models.causal import Causal
from hookline.models.role import Role, recomputing
from hookline_plugins.models.lora import LoRA

V = 48
SMALL = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "head_dim": 16}
LINEAR = {
    **TEXT, "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
    "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 2,
    "num_experts_per_tok": 1, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def role_of(config: Any, **options: Any) -> Role:
    family = Causal(Causal.Config())
    family.instance = "causal"
    torch.manual_seed(0)
    return Role("policy", tf.AutoModelForCausalLM.from_config(config).eval(), family, **options)


def lora(modules: tuple[str, ...]) -> LoRA:
    made = LoRA(LoRA.Config(rank=2, modules=modules))
    made.instance = "lora"
    return made


# -- adapters


@pytest.mark.parametrize("layer", ["wte", "lm_head"])
def test_lora_on_either_side_of_a_tied_weight_is_refused(layer: str) -> None:
    net = role_of(tf.GPT2Config(vocab_size=V, n_embd=32, n_layer=1, n_head=2, **TOKENS)).net
    with pytest.raises(ExperimentError, match=f"'{layer}' shares its weight with"):
        lora((layer,)).attach(net)


def test_lora_on_an_untied_embedding_or_output_layer_counts_in_log_probs() -> None:
    config = tf.GPTNeoXConfig(**SMALL, intermediate_size=32, tie_word_embeddings=False, **TOKENS)
    role = role_of(config)
    role.net, role.adapter = lora(("embed_in", "lm_head")).attach(role.net), True
    assert not role.check_fused(), "the product with the frozen weight would leave the adapter out"
    plain = role_of(config)
    assert plain.check_fused()


# -- logits and states


def capped() -> dict[str, Any]:
    gemma4 = {**TEXT, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": V, **TOKENS}
    return {
        "gemma2": tf.Gemma2Config(**TEXT, final_logit_softcapping=30.0, **TOKENS),
        "gemma4": tf.Gemma4Config(text_config={**gemma4, "final_logit_softcapping": 30.0}),
        "xlstm": tf.xLSTMConfig(vocab_size=V, hidden_size=32, num_hidden_layers=1, num_heads=2, **TOKENS),
        "recurrent_gemma": tf.RecurrentGemmaConfig(**SMALL, intermediate_size=32, lru_width=32, **TOKENS),
        "granite": tf.GraniteConfig(**{k: v for k, v in TEXT.items() if k != "head_dim"}, logits_scaling=8.0, **TOKENS),
    }


@pytest.mark.parametrize("name", sorted(capped()))
def test_bent_or_scaled_logits_are_seen_while_they_are_small(name: str) -> None:
    assert not role_of(capped()[name]).check_fused()


def test_a_cap_is_seen_where_the_output_layer_is_still_zero() -> None:
    role = role_of(capped()["gemma2"])
    with torch.no_grad():
        role.net.lm_head.weight.zero_()
    assert not role.check_fused()


@pytest.mark.parametrize(
    ("config", "width"),
    [
        (
            tf.OPTConfig(
                **SMALL, word_embed_proj_dim=16, ffn_dim=32, max_position_embeddings=64, do_layer_norm_before=False
            ),
            16,
        ),
        (tf.Llama4TextConfig(**TEXT, intermediate_size_mlp=32, num_local_experts=2, **TOKENS), 32),
        (tf.GPT2Config(vocab_size=V, n_embd=24, n_layer=1, n_head=2, **TOKENS), 24),
    ],
    ids=["opt", "llama4", "gpt2"],
)
def test_heads_fit_the_states_that_come_out(config: Any, width: int) -> None:
    role = role_of(config)
    assert role.hidden_size == width
    assert role.check_fused()


def test_an_output_of_several_layers_is_not_taken_for_a_product() -> None:
    config = tf.RemBertConfig(**SMALL, intermediate_size=32, input_embedding_size=16, output_embedding_size=24)
    config.is_decoder = True
    assert not role_of(config).check_fused()


def test_recomputation_leaves_layer_drop_and_router_noise_off() -> None:
    config = tf.OPTConfig(
        **SMALL, word_embed_proj_dim=32, ffn_dim=32, max_position_embeddings=64, layerdrop=0.9, dropout=0
    )
    role = role_of(config, recompute=True)
    role.net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ids = torch.arange(8)[None]
    recomputing(role.base, False)
    still = role.net(ids, use_cache=False).logits
    recomputing(role.base, True)
    assert any(module.training for module in role.net.modules())
    assert not role.base.training
    for _ in range(4):
        assert torch.equal(role.net(ids, use_cache=False).logits, still)


# -- decoding


@pytest.mark.parametrize(
    "config",
    [
        tf.BartConfig(vocab_size=V, d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32),
        tf.RobertaConfig(**SMALL, intermediate_size=32, max_position_embeddings=64, is_decoder=True),
        tf.OpenAIGPTConfig(vocab_size=V, n_embd=32, n_layer=1, n_head=2, n_positions=64),
        tf.RecurrentGemmaConfig(**{**SMALL, "num_hidden_layers": 3}, intermediate_size=32, lru_width=32, **TOKENS),
        tf.GPT2Config(vocab_size=V, n_embd=32, n_layer=1, n_head=2, **TOKENS),
        tf.Qwen3NextConfig(**LINEAR),
    ],
    ids=["bart", "roberta", "openai-gpt", "recurrent-gemma", "gpt2", "qwen3-next"],
)
@torch.no_grad()
def test_a_short_row_beside_a_longer_one_decodes_as_it_does_alone(config: Any) -> None:
    role = role_of(config)
    state = role.prefill([[3, 4], [5, 6, 7, 8, 9]], 0)
    row = [3, 4]
    for token in (11, 12):
        role.step(state, torch.tensor([token, token]))
        row.append(token)
        alone = role.net(input_ids=torch.tensor([row])).logits[0, -1]
        assert torch.allclose(state.logits_BV[0], alone, atol=1e-5)
    if not state.movable:  # its rows stay together until all have ended
        return
    moved = state.rows(torch.tensor([0]))
    role.step(moved, torch.tensor([13]))
    alone = role.net(input_ids=torch.tensor([[*row, 13]])).logits[0, -1]
    assert torch.allclose(moved.logits_BV[0], alone, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        tf.BertConfig(**SMALL, intermediate_size=32, max_position_embeddings=64),
        tf.XLNetConfig(vocab_size=V, d_model=32, n_layer=1, n_head=2, d_inner=32),
        tf.XLMConfig(vocab_size=V, emb_dim=32, n_layers=1, n_heads=2, max_position_embeddings=64),
    ],
    ids=["bert", "xlnet", "xlm"],
)
def test_a_model_that_sees_later_tokens_is_refused_at_load(tmp_path: Path, config: Any) -> None:
    role = role_of(config)
    role.net.save_pretrained(tmp_path)
    with pytest.raises(ExperimentError, match="sees later tokens"):
        role.family.load(tmp_path)


def test_a_model_that_needs_more_than_tokens_is_refused_at_load(tmp_path: Path) -> None:
    role = role_of(tf.XmodConfig(**SMALL, intermediate_size=32, max_position_embeddings=64, is_decoder=True))
    role.net.save_pretrained(tmp_path)
    with pytest.raises(ExperimentError, match="cannot read a row of tokens: ValueError: Input language unknown"):
        role.family.load(tmp_path)


def test_answers_that_end_early_are_drawn_from_a_state_whose_rows_cannot_be_selected() -> None:
    """Linear attention of Qwen3-Next keeps a state that has no way to drop a row."""
    role = role_of(tf.Qwen3NextConfig(**LINEAR))
    prompts, every = [[5 + row] for row in range(6)], torch.arange(6)
    options: dict[str, Any] = {"sampling": Sampling(temperature=2.0), "max_new_tokens": 8, "seed": 1}
    greedy_B = torch.zeros(6, dtype=torch.bool)
    eos = int(decode({"policy": role}, prompts, every, greedy_B, ends=(V - 1,), **options)[0].token_ids[0])
    drawn = decode({"policy": role}, prompts, every, greedy_B, ends=(eos,), **options)
    assert len({len(one.token_ids) for one in drawn}) > 1, "some end early"


# -- weights


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "NaN"), (float("-inf"), "an infinite value")])
def test_a_weight_that_is_not_finite_is_named_at_load(tmp_path: Path, value: float, said: str) -> None:
    net = role_of(tf.GPT2Config(vocab_size=V, n_embd=32, n_layer=1, n_head=2, **TOKENS)).net
    with torch.no_grad():
        net.transformer.h[0].ln_2.bias[3] = value
    net.save_pretrained(tmp_path)

    class Words:
        vocabulary = V
        special: dict[str, int] = {}

    with pytest.raises(ExperimentError, match=rf"transformer\.h\.0\.ln_2\.bias in .* holds {said}"):
        load.build_policy(ModelSpec(path=str(tmp_path)), None, None, Words(), 0, load.family_of(None))


# -- logs


def test_transformers_prints_nothing_into_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """A folder of another program is loaded, trained with recomputation and an adapter, exported and loaded again."""
    from hookline.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["open close read write list"], 270)
    (tmp_path / "m").mkdir()
    tokenizer.save(tmp_path / "m")
    config = tf.GPT2Config(vocab_size=tokenizer.vocabulary, n_embd=16, n_layer=1, n_head=2, n_positions=32, **TOKENS)
    tf.GPT2LMHeadModel(config).save_pretrained(tmp_path / "m")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "open", "completion": " close"}\n' * 4)
    model = {"path": "m", "gradient_checkpointing": True, "adapter": {"lora": {"rank": 2}}}
    phase = {"name": "p", "steps": 1, "rollout": {"use": "dataset", "path": "rows.jsonl", "rows": 2}, "update": "sft"}
    experiment = {"name": "x", "threads": 1, "model": model, "trackers": [], "phases": [phase]}
    monkeypatch.chdir(tmp_path)
    recwarn.clear()
    capfd.readouterr()
    hookline.export(hookline.run(experiment, out="run"), "out")
    out, err = capfd.readouterr()
    assert [line for line in err.splitlines() if not line.startswith("note: ")] == []
    assert "\r" not in out
    assert [str(one.message) for one in recwarn] == []
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_an_exported_adapter_on_untied_outer_layers_is_the_model_that_was_trained(tmp_path: Path) -> None:
    config = tf.GPTNeoXConfig(**SMALL, intermediate_size=32, tie_word_embeddings=False, **TOKENS)
    role = role_of(config)
    role.net, role.adapter = lora(("embed_in", "query_key_value", "lm_head")).attach(role.net), True
    for parameter in role.trainable().values():
        torch.nn.init.normal_(parameter, std=0.2)
    role.export(tmp_path)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits
        ours, plain = role.net(ids).logits, role_of(config).net(ids).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    assert float((ours - plain).abs().max()) > 0.1
