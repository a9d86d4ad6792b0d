"""What a run says is true and leads on: other trainers' words, home folders, lines of adapters, ids, and full disks."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from badinput_lab import Lab, changed, refused

import hookline
from hookline.config.data import DataSpec, Part
from hookline.config.experiment import Evaluation, Experiment, ModelSpec, Phase, Save, TokenizerSpec
from hookline.contract.fields import Use
from hookline.errors import CheckpointError, HooklineError, nearest
from hookline.registry.offers import offers
from hookline.storage import folders
from hookline.storage.paths import expanded
from hookline.synonyms import MEANINGS, suggestion

# -- words of other trainers


@pytest.mark.parametrize(
    ("place", "word", "value", "said"),
    [
        ("update", "learning_rate", 1e-5, "did you mean 'lr'?"),
        ("update", "beta", 0.1, "did you mean 'kl_loss' (the price of KL in the loss)?"),
        ("update", "eps_clip", 0.2, "did you mean 'clip_range'?"),
        ("update", "clip_grad", 1.0, "did you mean 'grad_clip'?"),
        ("update", "cliprange_value", 0.2, "did you mean 'value_clip'?"),
        ("update", "ppo_mini_batch_size", 8, "did you mean 'minibatches' (their number, not their size)?"),
        ("update", "num_train_epochs", 3, "in Hookline that is 'epochs' of a phase (passes over the data)"),
        ("update", "max_completion_length", 64, "in Hookline that is 'max_new_tokens' of a rollout"),
        ("update", "samples_per_prompt", 4, "in Hookline that is 'samples_per_prompt' of a rollout"),
        ("rollout", "num_generations", 8, "did you mean 'samples_per_prompt'?"),
        ("rollout", "per_device_train_batch_size", 8, "did you mean 'rows' (prompts of a step)?"),
        ("rollout", "stop", "x", "did you mean 'stop_strings'?"),
        ("rollout", "eos_token_id", 2, "did you mean 'stop_token_ids'?"),
    ],
)
def test_a_word_of_another_trainer_leads_to_what_means_the_same(
    lab: Lab, place: str, word: str, value: Any, said: str
) -> None:
    path = lab.write(changed(lab.rl(), f"phases.0.{place}.{word}", value))
    refused(lab.hookline("explain", path), 2, f"phases.rl.{place} has no option '{word}'; {said}", problems=1)


NINE = """update learning_rate lr | update actor_lr lr | rollout num_generations samples_per_prompt | rollout n samples_per_prompt
rollout group_size samples_per_prompt | rollout n_samples_per_prompt samples_per_prompt | rollout max_tokens max_new_tokens
rollout max_completion_length max_new_tokens | rollout response_length max_new_tokens | rollout max_length max_new_tokens
rollout batch_size rows | rollout train_batch_size rows | rollout per_device_train_batch_size rows | rollout rollout_batch_size rows
rollout generation_batch_size rows | update epsilon clip_range | update epsilon_high clip_high | update kl_coef kl_loss
update init_kl_coef kl_loss | update coef kl_loss | update num_iterations epochs | update num_train_epochs epochs
update ppo_epochs epochs | update mini_batch_size minibatches | update warmup_steps warmup | update lr_scheduler schedule
update lr_scheduler_type schedule | update cliprange clip_range | update clip_ratio clip_range | update clip_eps clip_range
update clip_ratio_high clip_high | update kl_loss_coef kl_loss | update optim optimizer | update max_grad_norm grad_clip
update max_norm grad_clip | update gradient_accumulation_steps micro_tokens | update micro_batch_size micro_tokens
ppo vf_coef value_weight | ppo lambda lam | ppo entropy_coef entropy_bonus | ppo entropy_coeff entropy_bonus | update loss_type use
update scale_rewards scale | rollout dataset prompts | rollout data prompts | model model_name_or_path path | model name path
model pretrained path | model device device | model lora adapter | model peft_config adapter | model bf16 dtype
model torch_dtype dtype | top output_dir --out | top report_to trackers | top max_steps steps | top save_steps save
top resume_from_checkpoint --out | top reward_funcs reward | phase reward_funcs reward | phase num_train_epochs epochs
phase max_steps steps | phase save_steps save | update eps_clip clip_range | update beta kl_loss | update clip_grad grad_clip
ppo cliprange_value value_clip | rollout stop stop_strings | top reward reward | wrap coef beta | wrap target_kl target
phase early_stopping_patience stop | phase early_stopping stop | phase metric_for_best_model stop"""
"""What people type first: where, their word, our option."""
PLACES = {"update": "phases.0.update.", "ppo": "phases.0.update.", "rollout": "phases.0.rollout.", "phase": "phases.0.",
          "model": "model.", "top": "", "wrap": "phases.0.wrap.0."}  # fmt: skip


@pytest.mark.parametrize("spelled", [str, str.title, lambda word: word.replace("_", "-").upper()], ids=["as is", "Title", "UPPER"])
def test_the_words_that_people_type_first_lead_to_ours(spelled: Any) -> None:
    for place, word, ours in (line.split() for line in NINE.replace("\n", " | ").split(" | ")):
        made = BASE | ({"phases": [PHASE | {"update": {"use": "ppo"}, "advantage": "gae"}]} if place == "ppo" else {})
        where = f"{PLACES[place]}{spelled(word)}"
        with pytest.raises(HooklineError) as told:
            hookline.explain(changed(made, where, 1))
        assert re.search(f"has no option '{re.escape(spelled(word))}'; [^;]*'{ours}'", str(told.value)), (where, str(told.value))


COMPONENTS = """reward overlong overlong_buffer_len buffer | reward overlong max_resp_len longest | reward reward-model reward_pretrain path
reward function reward_kwargs arguments | reward math-answer ground_truth answer | reward format regex pattern
reward remote batch_size rows
wrap unfinished missing_eos_penalty reward | wrap clip-reward reward_clip_range limit | wrap normalise shift_mean shift
wrap whiten eps floor | wrap importance-weights tis_imp_ratio_cap high | wrap importance-weights rollout_is level
wrap replay replay_buffer_size capacity | wrap kl-penalty target_kl target | advantage group-relative eps floor
rollout text block_size length | rollout duel mixture_coef opponent | rollout dataset mask_history learn
update sapo sapo_temperature_neg tau_neg | update nash-md beta tau | update xpo alpha optimism | update xpo label_smoothing flips
update ilql cql_scale conservative | update ilql tau expectile | update sarsa tau polyak | update kto desirable_weight good
update best-of-n top_reward_percentage share | trackers wandb wandb_run_name name | trackers wandb project_name project
trackers console logging_steps lines | trackers jsonl filename path | model llama intermediate_size mlp"""
"""The section, a component, another trainer's word for an option of it, and our name."""


@pytest.mark.parametrize("line", COMPONENTS.replace("\n", " | ").split(" | "))
def test_options_of_every_component_answer_to_the_words_of_other_trainers(line: str) -> None:
    section, name, word, ours = line.split()
    component = {"use": name, word: 1}
    made = BASE | {"phases": [{key: value for key, value in PHASE.items() if key not in ("wrap", "advantage")}]}
    if section == "model":
        made = made | {"model": {"build": component}}
    elif section == "trackers":
        made = made | {"trackers": [component]}
    else:
        made["phases"][0][section] = [component] if section in ("reward", "wrap") else component
    with pytest.raises(HooklineError) as told:
        hookline.explain(made)
    assert f"has no option '{word}'; did you mean '{ours}'" in str(told.value)


def test_a_word_that_a_component_knows_is_no_option_of_it_and_leads_to_one() -> None:
    for cls in {offer.load() for offer in offers() if offer.built_in}:
        options = {field.alias or name for name, field in cls.Config.model_fields.items()}
        for word, ours in cls.Config.synonyms.items():
            assert word not in options, (cls.__name__, word)
            assert ours in options, (cls.__name__, word)


@pytest.mark.parametrize(
    ("where", "word", "said"),
    [
        ("phases.0.update", "missing_eos_penalty", "in Hookline that is 'wrap' of a phase (the wrapper `unfinished`)"),
        ("phases.0", "whiten_rewards", "did you mean 'wrap' (the wrapper `whiten`)?"),
        ("phases.0.save", "save_total_limit", "did you mean 'keep'?"),
        ("phases.0.save", "save_steps", "did you mean 'every'?"),
        ("", "wandb_project", "in Hookline that is 'project' of the tracker `wandb`"),
    ],
)
def test_a_word_leads_to_the_component_that_has_it(where: str, word: str, said: str) -> None:
    made = changed(BASE, "phases.0.save", {"keep": 1})
    with pytest.raises(HooklineError) as told:
        hookline.explain(changed(made, f"{where}.{word}".lstrip("."), 1))
    assert said in str(told.value)


PHASE: dict[str, Any] = {
    "name": "rl", "steps": 1, "rollout": {"use": "generate", "prompts": "task:keywords/train", "samples_per_prompt": 2},
    "reward": ["length"], "advantage": "group-relative", "update": {"use": "grpo"}, "wrap": [{"use": "kl-penalty"}],
}  # fmt: skip
BASE = {
    "name": "words", "model": {"build": {"use": "gpt2"}}, "tokenizer": {"train": "bpe", "on": "task:keywords/sentences"},
    "phases": [PHASE],
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "meant"),
    [("GRPO", "grpo"), ("Dr_GRPO", "dr-grpo"), ("PPO", "ppo"), ("KTO", "kto"), ("SFT", "sft")],
)
def test_a_component_is_found_in_any_letter_case(written: str, meant: str) -> None:
    with pytest.raises(HooklineError, match=f"did you mean '{meant}'"):
        hookline.explain(changed(BASE, "phases.0.update", {"use": written}))


def test_an_option_of_a_phase_at_the_top_is_sent_to_its_place(lab: Lab) -> None:
    for word in ("reward", "lr", "output_dir"):
        said = lab.hookline("explain", lab.write({**lab.rl(), word: "x"}))
        assert f"an experiment has no option '{word}'; in Hookline that is '" in said.err


def _options() -> set[str]:
    """The name of every option that an experiment can have, with those of the built-in components."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "components.md").read_text(encoding="utf-8")
    found = {"--out", *re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)}
    for model in (Experiment, ModelSpec, TokenizerSpec, Phase, Save, Evaluation, DataSpec, Part, Use):
        found |= {field.alias or name for name, field in model.model_fields.items()}
    return found


def test_every_meaning_is_an_option_that_exists() -> None:
    assert {ours.option for ours in MEANINGS} <= _options()


def test_no_word_that_means_something_is_guessed_by_its_spelling() -> None:
    assert "betas" not in suggestion("beta", ["betas", "lr"])
    assert nearest("stop", ["top_p", "top_k", "rows"]) == ""
    assert nearest("stepz", ["steps", "rows"]) == "; did you mean 'steps'?"


# -- home folders


def test_a_home_folder_is_meant_wherever_a_path_can_be_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    home = lab.folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("texts.jsonl", "pairs.jsonl"):
        shutil.move(lab.folder / name, home / name)
    (home / "counts.py").write_text(
        "from hookline import Component, hookimpl\n"
        "class Counts(Component):\n"
        "    @hookimpl\n"
        "    def hookline_reward(self, rollout):\n"
        "        return rollout.token_ids_BT[:, 0].float()\n"
    )
    made = lab.rl("counts", 1)
    made["tokenizer"]["on"] = "~/texts.jsonl"
    made["phases"][0]["rollout"]["prompts"] = "jsonl:~/pairs.jsonl"
    made["phases"][0]["evaluate"] = {"prompts": "~/pairs.jsonl", "rows": 2, "reward": "counts"}
    made["trackers"] = [{"use": "jsonl", "path": "~/rows.jsonl"}]
    path = lab.write(made)
    assert lab.hookline("run", path, "--out", "~/run", "-p", "~/counts.py").code == 0
    assert lab.hookline("export", "~/run", "~/model").code == 0
    assert lab.hookline("eval", "~/run").code == 0
    assert lab.hookline("compare", "one=~/run", "--csv", "~/table.csv").code == 0
    made |= {"plugins": ["~/counts.py"], "model": {"path": "~/model"}, "tokenizer": {"path": "~/model"}}
    assert lab.hookline("explain", lab.write(made)).code == 0
    assert {"run", "model", "rows.jsonl", "table.csv"} <= {one.name for one in home.iterdir()}
    assert not Path("~").exists()


def test_a_tilde_elsewhere_in_a_path_is_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/a:b.jsonl") == "/home/me/a:b.jsonl"
    for same in ("a~b", "a/~/b", "builtin:keywords/train?x=~", "x:y~"):
        assert expanded(same) == same


# -- lines


@pytest.mark.parametrize(
    ("adapter", "wrong", "said"),
    [
        ("{lora: {ranks: 2}}", "{lora", "model.adapter.lora has no option 'ranks'; did you mean 'rank'?"),
        ("\n    lora:\n      rank: 2\n      modules: [nothing]", "modules", "no linear layer 'nothing'"),
        ("\n    use: lora\n    alpha: x", "alpha", "model.adapter.alpha must be a number, not 'x'"),
        ("\n    lora:\n      rank: 0", "rank", "model.adapter.lora.rank is 0; it must be at least 1"),
        ("{lora: 3}", "{lora", "model.adapter must have the options of 'lora' in a mapping"),
        ("\n    lora: {rank: 2}\n    alpha: 3", "adapter", "model.adapter must name one adapter"),
        ("\n    lroa:\n      rank: 2", "lroa", "did you mean 'lora'?"),
    ],
)
@pytest.mark.parametrize("of", ["experiment", "phase"])
def test_an_adapter_s_error_is_at_the_line_of_the_wrong_key(
    lab: Lab, adapter: str, wrong: str, said: str, of: str
) -> None:
    made = lab.sft()
    place = made["model"] if of == "experiment" else made["phases"][0].setdefault("model", {})
    place["adapter"] = "HERE"
    text = lab.write(made).read_text()
    indent = "" if of == "experiment" else "    "
    text = text.replace("HERE", adapter.replace("\n", f"\n{indent}"))
    found = lab.hookline("explain", lab.write(text))
    at = next(i for i, line in enumerate(text.splitlines(), 1) if wrong in line)
    assert found.code in (2, 5)
    where = "" if of == "experiment" else "phases.sft."
    assert f"line {at}: " in found.err, found.err
    assert (said if not said.startswith("model.") else f"{where}{said}") in found.err


@pytest.mark.parametrize(("key", "value"), [("head", "reward"), ("from", "sft")])
def test_what_only_a_phase_can_ask_of_a_model_is_not_ignored(lab: Lab, key: str, value: str) -> None:
    refused(lab.hookline("explain", lab.write(changed(lab.sft(), f"model.{key}", value))), 2, f"`{key}`", problems=1)


def test_an_evaluation_without_a_name_is_overridden_by_the_name_that_messages_show(lab: Lab) -> None:
    made = changed(lab.rl(), "phases.0.evaluate", [{"prompts": "heldout.jsonl", "reward": "length"}])
    said = lab.hookline("explain", lab.write(made), "phases.rl.evaluate.heldout.rowz=3")
    assert "phases.rl.evaluate.heldout has no option 'rowz'; did you mean 'rows'?" in said.err


# -- ids from other people's components

GIVES = """
import torch
from hookline import Component, Encoded, Rollout, Sampling, hookimpl

class Gives(Component):
    name = "gives"

    @hookimpl
    def hookline_rollout(self, ctx):
        rows = [Encoded(prompt_ids=[5], answer_ids=[6]), Encoded(prompt_ids={prompt}, answer_ids={answer})]
        {draw}
        return Rollout.build(ctx, rows, source="theirs")
"""


@pytest.mark.parametrize(
    ("prompt", "answer", "draw", "said"),
    [
        ([5, 9999], [6], "", "prompt_ids_BP holds the token id 9999 in row 1, but the model's ids go from 0 to 279"),
        ([5], [6, -1], "", "token_ids_BT holds the token id -1 in row 1"),
        ([5], [6, 280], "", "token_ids_BT holds the token id 280 in row 1"),
        (
            [5],
            [6],
            "ctx.draw([[5], [7, 999]], ctx.sample_ids(2), max_new_tokens=2, sampling_=Sampling())",
            "'gives' draws from role 'policy' with the token id 999 in prompt 1",
        ),
    ],
    ids=["prompt", "negative", "one beyond", "drawn from"],
)
def test_ids_that_the_model_does_not_have_are_blamed_on_who_gave_them(
    lab: Lab, prompt: list[int], answer: list[int], draw: str, said: str
) -> None:
    made = changed(lab.sft(1), "phases.0.rollout", "gives")
    found = lab.plugin_run(GIVES.format(prompt=prompt, answer=answer, draw=draw), made)
    assert found.code == 5, found.err
    assert said in found.err
    assert "rollout 'gives' (mine.py" in found.err
    assert "update" not in found.sentence


# -- a full disk


def test_a_full_disk_is_measured_before_what_was_written_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "save"
    free = 1000

    def usage(place: Path) -> Any:
        used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        return shutil._ntuple_diskusage(free, used, free - used)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    full = pytest.raises(CheckpointError, match="40 bytes were free after 960 of its bytes; what was saved before")
    with full, folders.write_aside(target, {}) as aside:
        (aside / "weights").write_bytes(b"x" * 960)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_save_does_not_promise_to_continue_from_one(lab: Lab) -> None:
    fails = (
        "from hookline import Component, hookimpl\n"
        "class Fails(Component):\n"
        "    name = 'fails'\n"
        "    @hookimpl\n"
        "    def hookline_reward(self, ctx, rollout):\n"
        "        if ctx.step >= int(open('when').read()):\n"
        "            raise ValueError('no')\n"
        "        return rollout.token_ids_BT[:, 0].float()\n"
    )
    made = lab.rl("fails", 3)
    made["trackers"] = ["console"]
    (lab.folder / "when").write_text("0")
    out = lab.plugin_run(fails, made).out
    assert "nothing was saved, so the same command begins again" in out
    (lab.folder / "when").write_text("2")
    out = lab.plugin_run(fails, made).out
    assert "run the same command again to continue from the newest save" in out
    assert json.loads((lab.run_folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] >= 1
