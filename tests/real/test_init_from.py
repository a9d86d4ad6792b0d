"""`hookline init --from`: configurations in the shape of TRL's, verl's and OpenRLHF's examples become experiments of the same meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_init import here, said  # noqa: F401

GRPO = """
model_name_or_path: models/qwen2
dataset_name: prompts.jsonl
reward_funcs: [rewards.correct, accuracy_reward]
learning_rate: 1e-5
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.1}
warmup_ratio: 0.1
loss_type: grpo
beta: 0.04
epsilon: 0.2
epsilon_high: 0.28
num_generations: 8
max_completion_length: 64
per_device_train_batch_size: 8
gradient_accumulation_steps: 4
steps_per_generation: 8
num_iterations: 2
num_train_epochs: 2
use_peft: true
lora_r: 4
lora_target_modules: [q_proj, v_proj]
bf16: true
report_to: wandb
use_vllm: true
"""
PPO = r"""
set -x
export MODEL_PATH=models/qwen2   # a folder
TRAIN=${TRAIN_FILE:-prompts.jsonl}
python3 -m verl.trainer.main_ppo \
    algorithm.adv_estimator=gae \
    algorithm.use_kl_in_reward=True \
    data.train_files="['$TRAIN']" \
    data.train_batch_size=64 \
    data.max_prompt_length=128 \
    data.max_response_length=64 \
    actor_rollout_ref.model.path=$MODEL_PATH \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=16 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 \
    actor_rollout_ref.rollout.name=vllm \
    +actor_rollout_ref.rollout.top_k=-1 \
    critic.optim.lr=1e-5 \
    custom_reward_function.path=rewards.py \
    custom_reward_function.name=correct \
    trainer.logger='["console","wandb"]' \
    trainer.n_gpus_per_node=8 \
    trainer.total_epochs=15 $@
"""
REINFORCE = r"""
ray job submit --address="http://127.0.0.1:8265" --runtime-env-json='{"working_dir": "/openrlhf"}' \
   -- python3 -m openrlhf.cli.train_ppo_ray \
   --pretrain models/qwen2 \
   --remote_rm_url rewards.py \
   --advantage_estimator group_norm \
   --micro_train_batch_size 8 \
   --train_batch_size 128 \
   --rollout_batch_size 64 \
   --n_samples_per_prompt 4 \
   --max_epochs 1 --num_episodes 3 \
   --prompt_max_len 100 --generate_max_len 64 \
   --zero_stage 3 --bf16 \
   --actor_learning_rate 5e-7 \
   --init_kl_coef 1e-3 --use_kl_loss \
   --eps_clip 0.15 \
   --prompt_data prompts.jsonl --input_key prompt --label_key answer \
   --gradient_checkpointing | tee log.txt
"""


def written(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict[str, Any], str]:
    """(the experiment, what was printed); what is written can be planned."""
    text = said(capsys, "init", "mine.yaml", *more)
    said(capsys, "explain", "mine.yaml")
    return yaml.safe_load(Path("mine.yaml").read_text()), text


def phase_of(made: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    [phase] = made["phases"]
    return phase, phase["rollout"], phase["update"]


@pytest.fixture
def desk(here: Path) -> Path:  # noqa: F811
    (here / "rewards.py").write_text(
        "def correct(completions, **columns):\n    return [0.0 for _ in completions]\n\n"
        "def reward_func(queries, prompts, labels):\n    return {'rewards': [0.0 for _ in queries]}\n"
    )
    return here


def test_trl_counts_completions_and_optimiser_steps(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "grpo.yaml").write_text(GRPO)
    made, text = written(capsys, "--from", "grpo.yaml")
    phase, rollout, update = phase_of(made)
    assert made["model"]["adapter"] == {"lora": {"rank": 4, "alpha": 32, "modules": ["q_proj", "v_proj"]}}
    assert (rollout["rows"], rollout["samples_per_prompt"], rollout["max_new_tokens"]) == (8, 8, 64)  # 8 × 8 completions
    assert phase["reward"] == ["rewards.py:correct", "math-answer"]
    assert update == {
        "use": "grpo", "lr": 1e-5, "warmup": 0.1, "schedule": "cosine", "final_lr": 0.1, "clip_range": 0.2, "clip_high": 0.28,
        "kl_loss": 0.04, "epochs": 2, "minibatches": 2, "betas": [0.9, 0.999],
    }  # fmt: skip
    assert phase["steps"] == 30  # 2 × 120 rows, 8 per step
    assert "use_vllm: true" in text
    assert "report_to: wandb   here 'trackers' of the experiment" in text
    comments = Path("mine.yaml").read_text()
    assert "rows: 8  # prompts: 64 completions, 8 per prompt" in comments
    assert "#   use_vllm: true" in comments


@pytest.mark.parametrize(
    ("lines", "method", "option"),
    [
        ("loss_type: dapo", "dapo", {"clip_high": 0.28}),
        ("loss_type: dr_grpo", "dr-grpo", {"length": 64}),
        ("importance_sampling_level: sequence", "gspo", {"clip_range": 0.2}),
    ],
)
def test_each_loss_of_trls_grpo_is_an_update(
    lines: str, method: str, option: dict[str, Any], desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "grpo.yaml").write_text(GRPO.replace("loss_type: grpo", lines))
    update = phase_of(written(capsys, "--from", "grpo.yaml")[0])[2]
    assert update["use"] == method
    assert update.items() >= option.items()


def test_a_command_of_verl_keeps_its_minibatches_of_prompts(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "run.sh").write_text(PPO)
    made, text = written(capsys, "--from", "run.sh")
    phase, rollout, update = phase_of(made)
    assert (rollout["rows"], rollout["samples_per_prompt"], rollout["max_new_tokens"], rollout["longest"]) == (64, 1, 64, 128)
    assert phase["wrap"] == [{"use": "kl-penalty", "beta": 0.001}]
    assert phase["advantage"] == {"use": "gae", "lam": 1.0}
    assert update["minibatches"] == 4
    assert (update["lr"], update["critic_lr"], update["schedule"], update["epochs"]) == (1e-6, 1e-5, "constant", 1)
    assert phase["steps"] == 29  # 15 × 120 rows, 64 per step
    assert phase["reward"] == ["rewards.py:correct"]
    assert "ppo_mini_batch_size counts prompts: 64 ÷ 16" in Path("mine.yaml").read_text()
    assert "'micro_tokens' of an update (counted in tokens)" in text


def test_hydras_yaml_resolves_its_references(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "defaults": ["_self_"],
        "data": {"train_files": "prompts.jsonl", "train_batch_size": 32, "max_response_length": 32},
        "actor_rollout_ref": {
            "model": {"path": "models/qwen2", "lora_rank": 8},
            "actor": {"ppo_mini_batch_size": "${data.train_batch_size}", "loss_agg_mode": "seq-mean-token-mean", "clip_ratio": 0.1},
            "rollout": {"n": 4, "temperature": 0.7},
        },
        "algorithm": {"adv_estimator": "grpo"},
        "custom_reward_function": {"path": "rewards.py", "name": "correct"},
        "trainer": {"total_training_steps": 7},
    }
    (desk / "grpo.yaml").write_text(yaml.safe_dump(config))
    made, _ = written(capsys, "--from", "grpo.yaml", "--lora")
    phase, rollout, update = phase_of(made)
    assert made["model"]["adapter"]["lora"]["rank"] == 8
    assert (phase["steps"], rollout["temperature"], update["use"], update["clip_range"]) == (7, 0.7, "grpo", 0.1)
    assert "minibatches" not in update
    assert "wrap" not in phase


def test_a_command_of_openrlhf_counts_samples(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "run.sh").write_text(REINFORCE)
    made, text = written(capsys, "--from", "run.sh")
    phase, rollout, update = phase_of(made)
    assert (rollout["rows"], rollout["samples_per_prompt"]) == (64, 4)
    [reward] = phase["reward"]
    assert (reward["function"], reward["columns"]) == ("reward_func", {"labels": "answer"})
    assert update.items() >= {
        "use": "grpo", "minibatches": 2, "lr": 5e-7, "kl_loss": 0.001, "clip_range": 0.15, "schedule": "cosine", "warmup": 0.03,
    }.items()  # fmt: skip
    assert "wrap" not in phase
    assert made["model"]["gradient_checkpointing"] is True
    assert phase["steps"] == 6  # 3 × 120 rows, 64 per step
    assert "zero_stage: 3" in text


@pytest.mark.parametrize(
    ("config", "method", "rows", "option"),
    [
        ("trl dpo --model_name_or_path models/qwen2 --dataset_name preferences.jsonl --beta 0.3 --loss_type ipo "
         "--per_device_train_batch_size 2 --gradient_accumulation_steps 8 --max_steps 20", "dpo", 16, {"beta": 0.3, "loss": "ipo"}),
        ("accelerate launch --num_processes 2 examples/scripts/kto.py --model_name_or_path models/qwen2 --dataset_name labels.jsonl "
         "--desirable_weight 1.5 --learning_rate=5e-7", "kto", 16, {"good": 1.5, "lr": 5e-7}),
        ("deepspeed --module openrlhf.cli.train_sft --pretrain models/qwen2 --dataset answers.jsonl --input_key question "
         "--output_key answer --train_batch_size 16 --learning_rate 5e-6 --max_len 2048", "sft", 16, {"lr": 5e-6}),
        ("trl reward --model_name_or_path models/qwen2 --dataset_name preferences.jsonl --center_rewards_coefficient 0.02", "bradley-terry",
         8, {"centre": 0.02}),
        ("torchrun -m verl.trainer.fsdp_sft_trainer data.train_files=answers.jsonl model.partial_pretrain=models/qwen2 "
         "data.train_batch_size=16 optim.lr=1e-4 data.prompt_key=question data.response_key=answer", "sft", 16, {"lr": 1e-4}),
    ],
    ids=["dpo", "kto", "openrlhf-sft", "reward", "verl-sft"],
)  # fmt: skip
def test_methods_that_read_rows(
    config: str, method: str, rows: int, option: dict[str, Any], desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "run.sh").write_text(config)
    phase, rollout, update = phase_of(written(capsys, "--from", "run.sh")[0])
    assert (update["use"], rollout["rows"]) == (method, rows)
    assert update.items() >= option.items()
    assert phase["steps"] == 20 or "max_steps" not in config


def test_options_of_the_command_line_go_before_the_file(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = {"model_name_or_path": "Qwen/Qwen2.5-0.5B", "dataset_name": "trl-lib/x", "learning_rate": 2e-5}
    (desk / "args.json").write_text(json.dumps(named))
    more = ["--method", "sft", "--model", "models/qwen2", "--data", "answers.jsonl", "--epochs", "0.5"]
    phase = phase_of(written(capsys, "--from", "args.json", *more)[0])[0]
    assert (phase["steps"], phase["update"]["lr"]) == (8, 2e-5)  # 60 rows, 8 per step


@pytest.mark.parametrize(
    ("name", "text", "code", "words"),
    [
        ("a.yaml", GRPO.replace("models/qwen2", "Qwen/Qwen3-8B"), 2, "the model 'Qwen/Qwen3-8B', which is not here"),
        ("a.yaml", GRPO.replace("[rewards.correct, accuracy_reward]", "my.reward"), 2, "a reward: my.reward is not here"),
        ("a.yaml", "learning_rate: 1.0e-5\noutput_dir: out\n", 2, "which method it is for; the model; the data"),
        ("a.yaml", GRPO.replace("num_generations: 8", "num_generations: many"), 2, "num_generations is many, which is not a number"),
        ("a.yaml", GRPO.replace("epsilon: 0.2", "epsilon: 7.5"), 2, "nothing was written"),
        ("a.yaml", "a: [1\n", 3, "a.yaml, line 2"),
        ("a.yaml", "", 3, "holds no keys"),
        ("a.json", "{", 3, "is not JSON"),
        ("a.yaml", "colour: red\n", 2, "is not a configuration of TRL, verl or OpenRLHF: none of them has the keys colour"),
        ("a.sh", "echo hello\n", 2, "starts no trainer"),
        ("a.sh", "trl sft --config gone.yaml\n", 3, "gone.yaml cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_asked_and_nothing_is_written(
    name: str, text: str, code: int, words: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / name).write_text(text)
    assert words in said(capsys, "init", "mine.yaml", "--from", name, code=code)
    assert not Path("mine.yaml").exists()


def test_what_is_needed_without_a_configuration_is_said(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "init needs --model and --data" in said(capsys, "init", "mine.yaml", "--method", "sft", code=2)
    assert "gone.yaml cannot be read" in said(capsys, "init", "mine.yaml", "--from", "gone.yaml", code=3)
