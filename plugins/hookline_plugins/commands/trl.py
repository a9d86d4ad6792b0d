"""TRL's configurations (TrlParser's YAML, the command `trl`, scripts with the same options), and their meaning here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hookline_plugins.commands.meaning import Meaning
from hookline_plugins.commands.template import Method

METHODS = {"sft": "sft", "dpo": "dpo", "kto": "kto", "orpo": "orpo", "grpo": "grpo", "rloo": "rloo", "ppo": "ppo",
           "reward": "reward-model", "reward_modeling": "reward-model"}  # fmt: skip
"""The word after `trl`, or a script's name → our method."""
LOSSES = {"dapo": "dapo", "bnpo": "dapo", "grpo": "grpo", "dr_grpo": "dr-grpo"}
"""`loss_type` of GRPO → the update that aggregates in this way."""
TELLING = {
    "grpo": ("num_generations", "max_completion_length", "reward_funcs", "num_iterations"),
    "kto": ("desirable_weight", "undesirable_weight"),
    "reward-model": ("center_rewards_coefficient",),
    "dpo": ("label_smoothing", "reference_free", "precompute_ref_log_probs", "ld_alpha", "rpo_alpha"),
    "sft": ("packing", "assistant_only_loss", "completion_only_loss", "dataset_text_field"),
}
"""Keys that only one method has, in the order in which they decide."""
REWARDS = {"accuracy_reward": "math-answer"}


class TRL(Meaning):
    def chosen(self) -> str | None:
        loss = self.values.get("loss_type")
        found = METHODS.get(self.script) or next((m for m, keys in TELLING.items() if any(k in self.values for k in keys)), None)
        if self.script == "cpo":
            found = "simpo" if self.take("loss_type") == "simpo" else None
        elif found is None and loss in ("sigmoid", "hinge", "ipo"):
            found = "dpo"
        if found != "grpo":
            return found
        if self.take("importance_sampling_level") == "sequence":
            return "gspo"
        found = LOSSES.get(str(self.take("loss_type") or "dapo"))
        if found == "dapo":
            self.left.append(
                f"loss_type {loss or 'dapo (default)'}: the update 'dapo' is a mean over all tokens; it leaves out groups of equal rewards"
            )
            high = self.take("epsilon_high") or self.take("epsilon") or 0.2
            self.place("an update", "clip_range", self.take("epsilon") or 0.2)
            self.place("an update", "clip_high", high)
        elif found == "dr-grpo":
            self.place("an update", "length", self.values.get("max_completion_length") or 512)
        return found

    def model_keys(self) -> tuple[str, ...]:
        return ("model_name_or_path", "model")

    def data_keys(self) -> tuple[str, ...]:
        return ("dataset_name", "data_files", "dataset", "train_file")

    def judged(self) -> None:
        named = self.take("reward_funcs") or []
        for name in named if isinstance(named, list) else [named]:
            module, _, function = str(name).rpartition(".")
            file = f"{module.replace('.', '/')}.py"
            if name in REWARDS:
                self.rewards.append(REWARDS[name])
            elif module and Path(file).is_file():
                self.rewards.append(f"{file}:{function}")
            elif self.path(name):
                self.rewards.append(str(self.path(name)))
            else:
                self.absent.append(str(name))
        scorer = self.take("reward_model_name_or_path", "reward_model_path")
        if scorer:
            found = self.path(scorer)
            (self.rewards if found else self.absent).append(found or str(scorer))
        text = self.take("dataset_text_field")
        if text not in (None, "text"):
            self.columns["text"] = str(text)

    def adapter(self) -> dict[str, Any]:
        wanted, rank, alpha, layers = (self.take(k) for k in ("use_peft", "lora_r", "lora_alpha", "lora_target_modules"))
        return _lora(rank or 16, alpha or 32, layers) if wanted else {}

    def numbers(self, method: Method) -> None:
        per = self.number("per_device_train_batch_size", default=8)
        parts = self.number("gradient_accumulation_steps", default=1)
        devices, repeats = self.processes, self.number("num_iterations", default=1)
        if method.reads == "prompts":
            several = self.number("num_generations", default=2 if method.price else 8)
            drawn = per * devices * self.number("steps_per_generation", default=parts)
            drawn = self.number("generation_batch_size", default=drawn)
            split = max(1, drawn / (per * devices * parts))
            self.rows(
                drawn / several, f"prompts: {drawn:g} completions, {several:g} per prompt", split,
                f"{drawn:g} completions, {per * devices * parts:g} per optimiser step",
            )  # fmt: skip
            self.place("a rollout", "samples_per_prompt", several)
            self.place("a rollout", "max_new_tokens", self.number("max_completion_length", default=512))
            if repeats > 1:
                self.place("an update", "epochs", repeats, "passes over the rows of one step")
            self._price(method)
        else:
            split = 1
            self.rows(per * parts * devices, f"{per:g} per device × {parts:g} accumulated × {devices} devices")
            if method.reads == "text":
                self.place("a rollout", "length", self.number("max_length", "max_seq_length", default=1024))
        steps = self.number("max_steps", default=-1)
        self.lasts(self.number("num_train_epochs", default=3), steps / split / repeats)
        lr = self.take("learning_rate")
        warmup = max(self.number("warmup_steps", default=0), self.number("warmup_ratio", default=0))
        schedule = self.take("lr_scheduler_type") or (None if lr is None else "linear")
        self.rates(lr, schedule, warmup or (None if lr is None else 0), self.take("lr_scheduler_kwargs.min_lr_rate"))
        self.betas(self.number("adam_beta1", default=0.9), self.number("adam_beta2", default=0.999))
        self.optimizer("optim")
        if self.take("bf16") or self.take("fp16") or self.take("dtype", "torch_dtype"):
            self.left.append("bf16, fp16, dtype: the weights have the folder's type; `autocast: auto` of the model computes in bfloat16")
        if method.reads == "preferences" and self.number("label_smoothing", default=0) > 0:
            self.place("an update", "loss", "conservative")
            self.place("an update", "flips", self.values["label_smoothing"])

    def _price(self, method: Method) -> None:
        """`beta` is a price in the loss for GRPO (0 by default), and in the reward for RLOO (0.05)."""
        if method.price:
            self.place("a wrapper", "beta", self.number("beta", "kl_coef", default=0.05))
        else:
            self.place("an update", "kl_loss", self.number("beta", default=0.0), "in the loss")


def _lora(rank: Any, alpha: Any, layers: Any) -> dict[str, Any]:
    """The adapter's options; `all-linear` is what it adapts where nothing is said."""
    found = {"rank": rank, "alpha": alpha}
    names = layers.split(",") if isinstance(layers, str) else layers
    return {**found, "modules": names} if names and names != ["all-linear"] else found
