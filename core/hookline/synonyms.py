"""What other trainers call an option: a word that a user brings from TRL, verl, OpenRLHF or transformers, and ours for it.

A word's meaning goes before its spelling: `beta` is close to `betas`, but means the price of a KL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hookline.errors import nearest, plain

__all__ = ["Ours", "meanings", "suggestion"]


class Ours(NamedTuple):
    """What a word of another trainer means here."""

    option: str
    """The option's name."""
    place: str
    """Whose option it is, e.g. `an update`."""
    note: str = ""
    """How the meaning differs."""


MEANINGS = {
    Ours("lr", "an update"): "learning_rate actor_lr policy_lr actor_learning_rate peak_lr base_lr",
    Ours("critic_lr", "an update"): "critic_learning_rate value_lr",
    Ours("schedule", "an update"): "lr_scheduler_type lr_scheduler scheduler",
    Ours("warmup", "an update", "in optimiser steps, or below 1 their share"): "warmup_steps lr_warmup_steps warmup_ratio lr_warmup_ratio",
    Ours("final_lr", "an update", "a fraction of the peak"): "min_lr min_lr_ratio",
    Ours("grad_clip", "an update"): "max_grad_norm max_norm clip_grad gradient_clipping",
    Ours("betas", "an update"): "adam_beta1 adam_beta2 adam_betas",
    Ours("weight_decay", "an update"): "wd",
    Ours("optimizer", "an update"): "optim optimiser optimizer_type",
    Ours("epochs", "an update", "passes over the rows of one step"): "num_iterations ppo_epochs num_ppo_epochs",
    Ours("minibatches", "an update", "their number, not their size"): "steps_per_generation mini_batch_size ppo_mini_batch_size "
    "num_mini_batches train_global_batch_size",
    Ours("micro_tokens", "an update", "counted in tokens"): "micro_batch_size train_micro_batch_size max_tokens_per_gpu "
    "gradient_accumulation_steps ppo_micro_batch_size_per_gpu ppo_max_token_len_per_gpu",
    Ours("packing", "an update"): "padding_free use_remove_padding remove_padding packing_samples sample_packing "
    "neat_packing sequence_packing",
    Ours("clip_range", "an update"): "epsilon eps_clip cliprange clip_ratio clip_eps clip_ratio_low epsilon_low",
    Ours("clip_high", "an update"): "epsilon_high clip_ratio_high eps_clip_high",
    Ours("value_clip", "an update"): "cliprange_value vf_clip value_clip_range",
    Ours("value_weight", "an update"): "vf_coef value_coef value_loss_coef",
    Ours("entropy_bonus", "an update"): "entropy_coef entropy_coeff ent_coef entropy_weight",
    Ours("kl_loss", "an update", "the price of KL in the loss"): "beta kl_coef kl_beta init_kl_coef kl_loss_coef init_coef coef",
    Ours("beta", "a wrapper", "the price of KL in the reward"): "coef kl_coef init_kl_coef kl_beta init_coef kl_penalty_coef",
    Ours("lam", "an advantage"): "lambda gae_lambda",
    Ours("gamma", "an advantage"): "discount discount_factor",
    Ours("scale", "an advantage"): "scale_rewards norm_adv_by_std_in_grpo",
    Ours("rows", "a rollout", "prompts of a step"): "batch_size train_batch_size per_device_train_batch_size "
    "per_device_batch_size generation_batch_size rollout_batch_size num_prompts_per_step",
    Ours("samples_per_prompt", "a rollout"): "num_generations n_samples_per_prompt num_generations_per_prompt group_size n "
    "num_return_sequences num_samples",
    Ours("max_new_tokens", "a rollout"): "max_completion_length response_length max_response_length max_tokens "
    "generate_max_len max_gen_len max_length",
    Ours("stop_strings", "a rollout", "the answer keeps the string"): "stop stop_sequences stop_words",
    Ours("stop_token_ids", "a rollout", "beside those of the tokenizer"): "eos_token_id",
    Ours("min_new_tokens", "a rollout"): "min_tokens min_completion_length",
    Ours("longest", "a rollout", "prompt and answer together"): "max_length max_seq_length max_seq_len max_len cutoff_len "
    "max_prompt_length max_input_length prompt_max_len",
    Ours("overlong", "a rollout"): "truncation truncation_mode truncate filter_overlong_prompts drop_overlong",
    Ours("columns", "the section `data`"): "prompt_key input_key output_key label_key prompt_column text_column response_key "
    "messages_key field_messages column_mapping dataset_text_field remap",
    Ours("split", "the section `data`"): "dataset_split train_split data_split",
    Ours("subset", "the section `data`"): "dataset_config config_name dataset_subset",
    Ours("heldout", "the section `data`"): "val_size val_set_size eval_size test_size validation_split eval_split_ratio",
    Ours("weight", "the section `data`"): "probabilities probs interleave_probs prompt_probs sampling_weight ratio",
    Ours("shape", "the section `data`"): "formatting format type template_type ds_type",
    Ours("roles", "the section `data`"): "tags role_mapping roles_map",
    Ours("message", "the section `data`"): "message_property_mappings message_keys",
    Ours("system", "the section `data`"): "system_prompt default_system",
    Ours("chat", "the section `data`"): "apply_chat_template use_chat_template",
    Ours("prompts", "a rollout"): "dataset train_dataset dataset_name prompt_data data prompts_path",
    Ours("path", "a rollout"): "dataset train_dataset dataset_name data data_path file",
    Ours("path", "the model"): "model_name_or_path model_name pretrained pretrain model_path base_model name model_id",
    Ours("adapter", "the model"): "lora peft peft_config use_peft lora_config",
    Ours("rank", "an adapter"): "lora_r r lora_rank",
    Ours("alpha", "an adapter"): "lora_alpha",
    Ours("modules", "an adapter"): "target_modules lora_target_modules",
    Ours("rslora", "an adapter"): "use_rslora",
    Ours("dora", "an adapter"): "use_dora",
    Ours("dtype", "the model"): "torch_dtype precision bf16 fp16 fp32",
    Ours("autocast", "the model"): "bf16 fp16 amp mixed_precision",
    Ours("gradient_checkpointing", "the model"): "enable_gradient_checkpointing use_gradient_checkpointing",
    Ours("layers", "model.build"): "num_hidden_layers num_layers n_layer n_layers",
    Ours("width", "model.build"): "hidden_size n_embd d_model",
    Ours("heads", "model.build"): "num_attention_heads num_heads n_head n_heads",
    Ours("context", "model.build"): "max_position_embeddings n_positions block_size",
    Ours("vocabulary", "the tokenizer"): "vocab_size",
    Ours("steps", "a phase"): "max_steps max_num_steps num_train_steps total_steps total_training_steps num_steps",
    Ours("epochs", "a phase", "passes over the data"): "num_train_epochs num_episodes total_epochs total_episodes num_epochs "
    "max_epochs max_num_epochs train_epochs",
    Ours("stop", "a phase", "ends it when a figure no longer improves"): "early_stopping early_stopping_patience "
    "early_stopping_threshold early_stop metric_for_best_model greater_is_better load_best_model_at_end",
    Ours("url", "a judge"): "base_url api_base openai_base_url server_url endpoint remote_rm_url judge_url",
    Ours("key", "a judge", "the name of an environment variable"): "api_key openai_api_key token",
    Ours("model", "a judge"): "judge_model judge_model_name model_name",
    Ours("max_tokens", "a judge"): "max_completion_tokens",
    Ours("tries", "a judge"): "max_retries retries num_retries max_attempts",
    Ours("at_once", "a judge"): "concurrency max_concurrency max_concurrent num_workers max_connections max_workers",
    Ours("body", "a judge"): "extra_body sampling_params generation_kwargs",
    Ours("template", "a judge"): "prompt_template judge_prompt judge_template",
    Ours("system", "a judge"): "system_prompt",
    Ours("reward", "a phase"): "reward_funcs reward_func reward_fn reward_function rewards",
    Ours("reward", "a phase", "the reward `overlong`"): "overlong_buffer overlong_buffer_len overlong_buffer_length overlong_buffer_cfg "
    "soft_max_length soft_cache_length",
    Ours("wrap", "a phase", "the wrapper `unfinished`"): "missing_eos_penalty",
    Ours("wrap", "a phase", "the wrapper `whiten`"): "whiten_advantages whiten_rewards normalize_advantages advantage_whitening",
    Ours("wrap", "a phase", "the wrapper `normalise`"): "normalize_reward normalize_rewards reward_normalization",
    Ours("wrap", "a phase", "the wrapper `clip-reward`"): "reward_clip_range cliprange_reward",
    Ours("wrap", "a phase", "the wrapper `importance-weights`"): "vllm_importance_sampling_correction vllm_importance_sampling_cap "
    "vllm_importance_sampling_mode tis_imp_ratio_cap rollout_is rollout_is_threshold truncated_importance_sampling_ratio "
    "use_importance_sampling_correction enable_vllm_is_correction",
    Ours("evaluate", "a phase"): "eval_steps eval_strategy eval_dataset test_freq evaluation",
    Ours("save", "a phase"): "save_steps save_interval save_freq save_total_limit save_strategy checkpoint_dir",
    Ours("every", "the section `save`"): "save_steps save_interval save_freq",
    Ours("keep", "the section `save`"): "save_total_limit max_ckpt_num max_actor_ckpt_to_keep",
    Ours("best", "the section `save`", "a figure, e.g. eval/reward"): "metric_for_best_model load_best_model_at_end",
    Ours("every", "an evaluation"): "eval_steps test_freq eval_interval",
    Ours("project", "the tracker `wandb`"): "wandb_project project_name",
    Ours("name", "the tracker `wandb`"): "run_name wandb_run_name experiment_name",
    Ours("entity", "the tracker `wandb`"): "wandb_entity wandb_org",
    Ours("lines", "the tracker `console`", "how many a phase prints"): "logging_steps log_interval",
    Ours("use", "an update", "each form of a loss is an update of its own: grpo, dapo, dr-grpo, gspo"): "loss_type policy_loss "
    "loss_mode policy_loss_fn algorithm adv_estimator",
    Ours("eos", "the tokenizer", "the tokens that end an answer"): "eos_token eos_token_id",
    Ours("device", "the experiment", "found by itself; CUDA_VISIBLE_DEVICES chooses among GPUs"): "device_map use_cuda no_cuda "
    "use_cpu n_gpus n_gpus_per_node",
    Ours("trackers", "the experiment"): "report_to logger loggers log_with tracker",
    Ours("--out", "the command `run`", "a run that is there goes on"): "output_dir out_dir save_dir default_local_dir out "
    "resume_from_checkpoint resume load_checkpoint",
}  # fmt: skip


def meanings(word: str) -> list[Ours]:
    """What a word of TRL, verl, OpenRLHF or transformers means, in each place that has it: `lora_r` → `rank` of an adapter.

    Letter case, and `-` or `_`, do not count. A word that is not known has no meaning.
    """
    return [ours for ours, words in MEANINGS.items() if plain(word) in words.split()]


def suggestion(
    word: str, known: Iterable[str], fitting: Iterable[str] | None = None, own: Mapping[str, str] | None = None
) -> str:
    """`"; did you mean 'lr'?"`, `"; in Hookline that is 'steps' of a phase"`, or nothing.

    known: the options where the word was written. fitting: those of them that can hold its value, for a word that is
    only spelled alike. own: words that the component itself knows, each with its option.

    Letter case, `-` or `_`, and an `s` at the end do not count.
    """
    known, word = list(known), plain(word)
    meant: list[Ours] = []
    for forms in ({word}, {f"{word}s", word.removesuffix("s")}):
        said = next((option for other, option in (own or {}).items() if plain(other) in forms and option in known), None)
        same = said or next((option for option in known if plain(option) in forms and not meant), None)
        if same:
            return f"; did you mean '{same}'?"
        meant = meant or [ours for ours, words in MEANINGS.items() if forms & set(words.split())] or _placed(forms)
    here = next((ours for ours in meant if ours.option in known and _belongs(ours, known)), None)
    if here:
        return f"; did you mean '{here.option}'{f' ({here.note})' if here.note else ''}?"
    alike = nearest(word, (() if meant else known) if fitting is None else fitting)
    if alike or not meant:
        return alike
    return "; in Hookline that is " + " or ".join(
        f"'{ours.option}' of {ours.place}{f' ({ours.note})' if ours.note else ''}" for ours in meant
    )


def _belongs(ours: Ours, known: Iterable[str]) -> bool:
    """Whether the option of this name is the one that is meant, where several places have one: `epochs`, `stop`."""
    return (ours.place == "a phase") == ("steps" in known) if ours.place in ("a phase", "an update") else True


def _placed(forms: set[str]) -> list[Ours]:
    """The place of an option of ours that was written elsewhere, where only one has an option of this name."""
    places = {ours.place: ours for ours in reversed(MEANINGS) if ours.option in forms}
    found = list(places.values())
    return found if len(found) == 1 and found[0].place in ("a phase", "an update", "a rollout", "the experiment") else []
