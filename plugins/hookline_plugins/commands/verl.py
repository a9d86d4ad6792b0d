"""verl's configurations (Hydra's YAML, or the overrides of a command), and their meaning here."""

from __future__ import annotations

from typing import Any

from hookline_plugins.commands.meaning import Meaning
from hookline_plugins.commands.template import Method

ESTIMATORS = {"gae": "ppo", "grpo": "grpo", "grpo_passk": "grpo", "rloo": "rloo", "reinforce_plus_plus": "reinforce-plus-plus",
              "reinforce_plus_plus_baseline": "reinforce-plus-plus"}  # fmt: skip
"""`algorithm.adv_estimator` → our method."""
AVERAGES = {"token-mean": "dapo", "seq-mean-token-mean": "grpo", "seq-mean-token-sum-norm": "dr-grpo"}
"""`loss_agg_mode` of GRPO → the update that averages in this way."""
ACTOR, ROLLOUT = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout."


class Verl(Meaning):
    foreign_keys = ("critic.", "reward_model.", "actor_rollout_ref.ref.", "trainer.", "ray", "global_profiler")

    def chosen(self) -> str | None:
        if "sft" in self.script or not any(key.startswith(("actor_rollout_ref.", "algorithm.")) for key in self.values):
            return "sft"
        found = ESTIMATORS.get(str(self.take("algorithm.adv_estimator") or "gae"))
        if found != "grpo":
            return found
        low = self.number(ACTOR + "clip_ratio_low", ACTOR + "clip_ratio", default=0.2)
        self.place("an update", "clip_range", low)
        self.place("an update", "clip_high", self.number(ACTOR + "clip_ratio_high", default=low))
        if self.take(ACTOR + "policy_loss.loss_mode") == "gspo":
            return "gspo"
        average = str(self.take(ACTOR + "loss_agg_mode") or "token-mean")
        if self.take("algorithm.norm_adv_by_std_in_grpo") is False:
            average = "seq-mean-token-sum-norm"
        found = AVERAGES.get(average, "grpo")
        if found == "dapo":
            self.left.append(
                f"loss_agg_mode {average}: the update 'dapo' is GRPO with a mean over all tokens; it leaves out groups of equal rewards"
            )
        elif found == "dr-grpo":
            self.place("an update", "length", self.values.get("data.max_response_length") or 512)
        return found

    def model_keys(self) -> tuple[str, ...]:
        return ("actor_rollout_ref.model.path", "model.partial_pretrain", "model.path")

    def data_keys(self) -> tuple[str, ...]:
        return ("data.train_files",)

    def judged(self) -> None:
        path, function = self.take("custom_reward_function.path"), self.take("custom_reward_function.name")
        if path:
            self.rewards.append(f"{self.path(path) or path}:{function or 'compute_score'}")
        scorer = self.take("reward_model.model.path", "reward.reward_model.model_path")
        if self.take("reward_model.enable", "reward.reward_model.enable"):
            found = self.path(scorer)
            (self.rewards if found else self.absent).append(found or str(scorer))
        keys = {"prompt": self.take("data.prompt_key"), "completion": self.take("data.response_key")}
        self.columns = {ours: key for ours, key in keys.items() if key and key != ours}

    def adapter(self) -> dict[str, Any]:
        model = "actor_rollout_ref.model." if "actor_rollout_ref.model.path" in self.values else "*model."
        rank, alpha, layers = (self.take(model + key) for key in ("lora_rank", "lora_alpha", "target_modules"))
        if not rank:
            return {}
        found = {"rank": rank, "alpha": alpha or 16}
        return {**found, "modules": layers} if isinstance(layers, list) else found

    def numbers(self, method: Method) -> None:
        drawing = method.reads == "prompts"
        rows = self.number("data.train_batch_size", default=1024 if drawing else 256)
        optim = ACTOR + "optim." if drawing else "optim."
        if drawing:
            mini = self.number(ACTOR + "ppo_mini_batch_size", default=256)
            self.rows(rows, "prompts per step", rows / mini, f"verl's ppo_mini_batch_size counts prompts: {rows:g} ÷ {mini:g}")
            self.place("an update", "epochs", self.number(ACTOR + "ppo_epochs", default=1), "passes over the rows of one step")
            self.place("a rollout", "samples_per_prompt", self.number(ROLLOUT + "n", default=1))
            self.place("a rollout", "max_new_tokens", self.number("data.max_response_length", default=512))
            self.place("a rollout", "longest", self.number("data.max_prompt_length", default=512), "tokens of a prompt")
            self._price()
            if method.advantage:
                self.place("an advantage", "lam", self.number("algorithm.lam", default=1.0))
                self.place("an update", "critic_lr", self.number("critic.optim.lr", default=1e-5))
                self.place("an update", "value_clip", self.number("critic.cliprange_value", default=0.5))
        else:
            self.rows(rows, "per step")
        steps = self.take("trainer.total_training_steps")
        self.lasts(self.number("trainer.total_epochs", default=30 if drawing else 4), steps or 0)
        warmup = self.number(optim + "lr_warmup_steps", default=-1)
        share = self.number(optim + "lr_warmup_steps_ratio", default=0)
        schedule = self.take(optim + "lr_scheduler_type", optim + "lr_scheduler", optim + "warmup_style")
        lr = self.number(optim + "lr", default=1e-6 if drawing else 1e-5)
        least = self.take(optim + "min_lr_ratio") if "cosine" in str(schedule) else None
        self.rates(lr, schedule or ("constant" if drawing else "cosine"), warmup if warmup > 0 else share, least)
        self.betas(*(self.take(optim + "betas") or (0.9, 0.999)))
        self.place("an update", "weight_decay", self.number(optim + "weight_decay", default=0.01))

    def _price(self) -> None:
        """KL is paid in the loss, in the reward, or not at all."""
        cost = self.number(ACTOR + "kl_loss_coef", default=0.001)
        if self.take(ACTOR + "use_kl_loss"):
            self.place("an update", "kl_loss", cost, "in the loss")
            if str(self.take(ACTOR + "kl_loss_type") or "low_var_kl") in ("low_var_kl", "k3"):
                self.place("an update", "kl_estimator", "k3")
        cost = self.number("algorithm.kl_ctrl.kl_coef", default=0.001)
        self.price = bool(self.take("algorithm.use_kl_in_reward"))
        self.place("a wrapper", "beta", cost if self.price else 0)
