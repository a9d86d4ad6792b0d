"""OpenRLHF's configurations (command lines of its programs, or their options as a file), and their meaning here.

Options are read in both forms: `--actor_learning_rate`, and by section, `--actor.optim.lr`.
"""

from __future__ import annotations

from typing import Any

from hookline_plugins.commands.meaning import Meaning
from hookline_plugins.commands.template import Method

PROGRAMS = {"train_sft": "sft", "train_dpo": "dpo", "train_kto": "kto", "train_rm": "reward-model"}
ESTIMATORS = {"gae": "ppo", "reinforce": "reinforce-plus-plus", "reinforce_baseline": "reinforce-plus-plus", "rloo": "rloo",
              "group_norm": "grpo", "dr_grpo": "dr-grpo"}  # fmt: skip
"""The advantage estimator → our method."""


class OpenRLHF(Meaning):
    foreign_keys = ("critic.", "ref.", "ds.", "vllm", "reward.")

    def chosen(self) -> str | None:
        if self.script in PROGRAMS:
            return PROGRAMS[self.script]
        drawing = any(key.startswith(("algo.", "rollout")) or key.endswith("n_samples_per_prompt") for key in self.values)
        if not (drawing or "ppo" in self.script):
            return None
        estimator = str(self.take("algo.advantage.estimator", "advantage_estimator", "adv_estimator") or "gae")
        found = ESTIMATORS.get(estimator)
        if estimator == "reinforce_baseline":
            self.left.append(f"{estimator}: the update 'reinforce-plus-plus-baseline' compares with the group's mean; name it in the file")
        if found == "dr-grpo":
            self.place("an update", "length", self.values.get("generate_max_len") or 1024)
        return found

    def model_keys(self) -> tuple[str, ...]:
        return ("actor.model_name_or_path", "model.model_name_or_path", "pretrain")

    def data_keys(self) -> tuple[str, ...]:
        return ("data.prompt_dataset", "data.dataset", "prompt_data", "dataset")

    def judged(self) -> None:
        for value in (self.take("reward.remote_url", "remote_rm_url"), self.take("reward.model_name_or_path", "reward_pretrain")):
            name = value[0] if isinstance(value, list) and value else value
            if isinstance(name, str) and name.endswith(".py"):
                self.rewards.append(f"{self.path(name) or name}:reward_func")
            elif self.path(name):
                self.rewards.append(str(self.path(name)))
            elif name:
                self.absent.append(str(name))
        asked, answered = self.take("data.input_key", "input_key"), self.take("data.output_key", "output_key")
        label = self.take("data.label_key", "label_key")
        if label and self.method not in ("sft", "kto"):
            self.arguments = {"labels": label}
        keys = {"prompt": asked, "completion": answered, "label": label if self.method == "kto" else None}
        keys |= {"chosen": self.take("data.chosen_key", "chosen_key"), "rejected": self.take("data.rejected_key", "rejected_key")}
        self.columns = {ours: key for ours, key in keys.items() if key and key != ours}
        if asked and answered is None and self.method == "sft":
            self.columns = {"messages": asked} if asked != "messages" else {}

    def adapter(self) -> dict[str, Any]:
        rank, alpha, layers = (self.take(f"*lora.{key}", f"lora_{key}") for key in ("rank", "alpha", "target_modules"))
        layers = layers if layers is not None else self.take("target_modules")
        if not rank:
            return {}
        named = [layers] if isinstance(layers, str) and layers != "all-linear" else layers
        found = {"rank": rank, "alpha": alpha or 16}
        return {**found, "modules": named} if isinstance(named, list) else found

    def numbers(self, method: Method) -> None:
        batch = self.number("train.batch_size", "train_batch_size", default=128)
        passes = self.number("train.max_epochs", "max_epochs", default=1)
        longest = self.take("data.max_len", "max_len")
        if method.reads == "prompts":
            prompts = self.number("rollout.batch_size", "rollout_batch_size", default=1024)
            several = self.number("rollout.n_samples_per_prompt", "n_samples_per_prompt", default=1)
            self.rows(
                prompts, "prompts per step", prompts * several / batch,
                f"OpenRLHF's train_batch_size counts samples: {prompts * several:g} ÷ {batch:g}",
            )  # fmt: skip
            self.place("a rollout", "samples_per_prompt", several)
            self.place("a rollout", "max_new_tokens", self.number("rollout.max_new_tokens", "generate_max_len", default=1024))
            self.place("an update", "epochs", passes, "passes over the rows of one step")
            self.lasts(self.number("train.num_episodes", "num_episodes", default=1))
            self._price()
            if method.advantage:
                self.place("an advantage", "lam", self.number("algo.advantage.lambd", "lambd", default=1.0))
                self.place("an update", "critic_lr", self.number("critic*.lr", "critic_learning_rate", default=9e-6))
                self.place("an update", "value_clip", self.number("critic.value_clip", "value_clip", default=0.5))
        else:
            self.rows(batch, "per step")
            self.lasts(passes)
            if longest is not None:
                self.place("a rollout", "longest", longest, "tokens of prompt and answer")
        lr = self.number("actor*.lr", "actor_learning_rate", "learning_rate", "*optim.lr", default=1e-6)
        schedule = self.take("*lr_scheduler", "*lr_scheduler_type") or "cosine_with_min_lr"
        least = self.number("*min_lr_ratio", default=0.1) if "min_lr" in schedule else None
        self.rates(lr, schedule, self.number("*lr_warmup_ratio", default=0.03), least)
        self.betas(*(self.take("*adam_betas", "*adam.betas") or (0.9, 0.95)))

    def _price(self) -> None:
        """KL is paid in the reward, or with `use_loss` in the loss."""
        cost = self.number("algo.kl.init_coef", "init_kl_coef", default=0.01)
        if self.take("algo.kl.use_loss", "use_kl_loss"):
            self.place("an update", "kl_loss", cost, "in the loss")
            cost = 0
        self.price = cost > 0
        self.place("a wrapper", "beta", cost)
