"""Parts that cannot work together: refused by `explain` and by `run`, in one sentence, before a model is built or a file written."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from badinput_lab import Lab, Said, changed, refused

GENERATE = {"use": "generate", "prompts": "pairs.jsonl", "rows": 2, "samples_per_prompt": 2, "max_new_tokens": 4}
ONE = {**GENERATE, "samples_per_prompt": 1}
DATASET = {"use": "dataset", "path": "pairs.jsonl", "rows": 4}
PREFERENCES = {"use": "preferences", "path": "prefs.jsonl", "rows": 2}


@pytest.fixture(params=["explain", "run"])
def verb(request: pytest.FixtureRequest) -> str:
    """Both refuse alike: what `explain` accepts, `run` can start."""
    return str(request.param)


@pytest.fixture
def say(lab: Lab, verb: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`say(experiment)` asks with a model that must not be built, and shows that nothing was written."""
    lab.rows("prefs.jsonl", [{"prompt": "open", "chosen": "a", "rejected": "b"}] * 4)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model was built for an experiment that cannot work")

    monkeypatch.setattr("hookline.models.load.build_policy", never)

    def ask(experiment: dict[str, Any]) -> Said:
        path = lab.write(experiment)
        before = sorted(lab.folder.iterdir())
        said = lab.hookline(verb, path, *(["--out", lab.run_folder] if verb == "run" else []))
        assert sorted(lab.folder.iterdir()) == before
        return said

    return ask


def phase(lab: Lab, **parts: Any) -> dict[str, Any]:
    """`lab.rl()` with parts of its phase replaced; None takes one out."""
    made = lab.rl()
    made["phases"][0] = {key: value for key, value in {**made["phases"][0], **parts}.items() if value is not None}
    return made


def two(lab: Lab, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two phases, the second after the first."""
    made = lab.sft()
    base = {"steps": 2, "update": "sft", "rollout": DATASET}
    made["phases"] = [{**base, "name": "one", **first}, {**base, "name": "two", **second}]
    made["phases"] = [{k: v for k, v in p.items() if v is not None} for p in made["phases"]]
    return made


def line_of(lab: Lab, text: str) -> str:
    lines = (lab.folder / "tiny.yaml").read_text().splitlines()
    return f"line {next(i for i, line in enumerate(lines, 1) if text in line)}: "


# -- groups, critics, ratios, pairs


@pytest.mark.parametrize("name", ["group-relative", "leave-one-out", {"use": "reward-to-go", "baseline": "group"}])
def test_a_group_method_with_one_sample_per_prompt(lab: Lab, say: Any, name: Any) -> None:
    said = say(phase(lab, rollout=ONE, advantage=name))
    who = name if isinstance(name, str) else name["use"]
    refused(
        said, 2, f"'{who}' needs several samples per prompt, but 'generate' gives one; e.g. samples_per_prompt: 4",
        problems=1,
    )  # fmt: skip
    assert said.problems[0].startswith(line_of(lab, f"advantage: {who}" if who == name else "  advantage:"))


@pytest.mark.parametrize(
    "wrap", [{"use": "whiten", "over": "group"}, {"use": "normalise", "over": "group"}], ids=["whiten", "normalise"]
)
def test_shaping_by_group_with_one_sample_per_prompt(lab: Lab, say: Any, wrap: Any) -> None:
    refused(
        say(phase(lab, rollout=ONE, wrap=[wrap])), 2, f"'{wrap['use']}' needs several samples per prompt", problems=1
    )


@pytest.mark.parametrize("update", ["grpo", "rloo", "dr-grpo"])
def test_an_update_that_brings_its_group_advantage_with_one_sample_per_prompt(lab: Lab, say: Any, update: str) -> None:
    said = say(phase(lab, rollout=ONE, advantage=None, update=update))
    refused(said, 2, f"'{update}' needs several samples per prompt, but 'generate' gives one", problems=1)


@pytest.mark.parametrize("update", ["reinforce", "grpo"])
def test_a_critic_method_with_no_critic(lab: Lab, say: Any, update: str) -> None:
    said = say(phase(lab, advantage="gae", update=update))
    refused(
        said, 2, "'gae' needs a critic, but nothing in this phase provides one; name an update that does", problems=1
    )
    assert said.problems[0].startswith(line_of(lab, "gae"))


@pytest.mark.parametrize("part", ["update", "kl-penalty", "importance-weights", "replay", "unfinished"])
def test_ratios_asked_of_rows_that_nobody_sampled(lab: Lab, say: Any, part: str) -> None:
    wrap = [] if part == "update" else ["importance-weights", part] if part == "replay" else [part]
    made = phase(lab, rollout=DATASET, wrap=wrap, advantage="reward-to-go", update="ppo")
    who = "ppo" if part == "update" else part
    said = say(made)
    refused(said, 2, "needs the sampler's log-probs, but 'dataset' records none; name a rollout that samples",
            problems=1 + len(wrap))  # fmt: skip
    assert any(f"'{who}' needs" in problem for problem in said.problems)


@pytest.mark.parametrize("update", ["dpo", "orpo", "simpo"])
def test_comparisons_asked_of_unpaired_data(lab: Lab, say: Any, update: str) -> None:
    made = phase(lab, rollout=DATASET, reward="length", advantage=None, update=update)
    said = say(made)
    refused(
        said, 2, f"'{update}' needs several answers per prompt, but 'dataset' reads one; ", "comparisons", problems=1
    )
    assert "samples_per_prompt" not in said.err, "that hint is for rollouts that sample"
    refused(say(phase(lab, rollout=ONE, advantage=None, update=update)), 2, "e.g. samples_per_prompt: 4", problems=1)


# -- one thing done twice


@pytest.mark.parametrize(
    ("parts", "who"),
    [
        ({"wrap": ["kl-penalty"], "update": {"use": "ppo", "kl_loss": 0.1}}, ("ppo", "kl-penalty")),
        ({"wrap": ["kl-penalty", {"use": "kl-penalty", "name": "again"}]}, ("again", "kl-penalty")),
        ({"wrap": ["kl-penalty"], "advantage": None, "update": "dpo"}, ("dpo", "kl-penalty")),
    ],
    ids=["loss", "twice", "dpo"],
)
def test_the_kl_priced_twice(lab: Lab, say: Any, parts: dict[str, Any], who: tuple[str, str]) -> None:
    said = say(phase(lab, **parts))
    refused(said, 2, f"'{who[0]}' and '{who[1]}' both penalise the KL to the reference; keep one of them", problems=1)


def test_a_kl_in_the_loss_that_is_switched_off_is_no_second_price(lab: Lab, say: Any, verb: str) -> None:
    if verb == "explain":
        said = say(phase(lab, wrap=["kl-penalty"], update={"use": "ppo", "kl_loss": 0}))
        assert said.code == 0, said.err


def test_two_corrections(lab: Lab, say: Any) -> None:
    twice = ["importance-weights", {"use": "importance-weights", "name": "more"}]
    refused(say(phase(lab, wrap=twice)), 2, "'more' and 'importance-weights' both correct for rows from older weights",
            problems=1)  # fmt: skip


# -- whose rows


@pytest.mark.parametrize("update", ["ppo", "grpo"])
def test_old_rows_with_an_update_that_takes_only_its_own(lab: Lab, say: Any, verb: str, update: str) -> None:
    advantage = None if update == "grpo" else "gae"
    said = say(phase(lab, wrap=["replay"], advantage=advantage, update=update))
    refused(said, 2, f"'{update}' learns on-policy, but 'replay' gives rows from older weights", "add a wrapper with importance weights",
            problems=1)  # fmt: skip
    if verb == "explain":
        said = say(phase(lab, wrap=["replay", "importance-weights"], advantage=advantage, update=update))
        assert said.code == 0, said.err


def test_another_policy_s_rows_with_an_update_that_takes_only_its_own(lab: Lab, verb: str) -> None:
    """The same for a rollout of somebody else's, which says so itself."""
    source = """
from hookline import Component, hookimpl
class Other(Component):
    name = "other"
    gives = {"behaviour", "off-policy"}
    @hookimpl
    def hookline_rollout(self, ctx): raise SystemExit("asked")
"""
    path = lab.write(phase(lab, rollout="other"))
    said = lab.hookline(verb, path, "-p", lab.plugin(source))
    refused(said, 2, "'ppo' learns on-policy, but 'other' gives rows from older weights or another policy", problems=1)


# -- what a phase reads from another


def test_a_reward_model_from_a_phase_without_a_reward_head(lab: Lab, say: Any) -> None:
    for part in (
        {"reward": {"use": "reward-model", "from": "one"}},
        {"reward": "length", "wrap": [{"use": "potential", "from": "one"}]},
        {"reward": "length", "evaluate": [{"reward": [{"use": "reward-model", "from": "one"}], "rollout": DATASET}]},
    ):
        said = say(two(lab, {}, {**lab.rl()["phases"][0], "name": "two", "reward": "length", **part}))
        refused(said, 2, "reads a head 'reward', but the model of phase 'one' has none; name a phase that trains one: "
                "model: {head: reward}", problems=1)  # fmt: skip


def test_a_reward_model_trained_without_a_head(lab: Lab, say: Any) -> None:
    said = say(two(lab, {}, {"rollout": PREFERENCES, "update": "bradley-terry"}))
    refused(said, 2, "'bradley-terry' reads a head 'reward', but the model of phase 'two' has none; add it to this phase: "
            "model: {head: reward}", problems=1)  # fmt: skip


def test_preferences_from_a_phase_that_collects_none(lab: Lab, say: Any) -> None:
    said = say(two(lab, {}, {"rollout": {"use": "preferences", "from": "one"}, "update": "dpo"}))
    refused(said, 2, "'preferences' reads the feedback of phase 'one', but that phase collects none; name a phase that has a "
            "`feedback`", problems=1)  # fmt: skip


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"use": "lora", "rank": 4}, "names 'lora' with rank 8 → 4; an adapter continues with the options"),
        ({"use": "lora", "rank": 8, "alpha": 3.0}, "names 'lora' with alpha None → 3.0"),
    ],
)
def test_an_adapter_that_goes_on_with_other_options(lab: Lab, say: Any, adapter: Any, words: str) -> None:
    lora = {"adapter": {"use": "lora", "rank": 8}}
    said = say(two(lab, {"model": lora}, {"model": {"adapter": adapter}}))
    refused(said, 2, "phase 'two' starts from 'one', which trained the adapter 'lora', but", words, problems=1)


# -- what the model cannot do


def test_an_adapter_on_layers_that_do_not_exist(lab: Lab, say: Any) -> None:
    for modules in (["q_proj"], ["c_attn", "q_proj"], ["ln_1"]):
        made = changed(lab.sft(), "model.adapter", {"use": "lora", "modules": modules})
        said = refused(say(made), 2, f"the model has no linear layer '{modules[-1]}'", "its layers are: ", "c_attn")
        assert "tiny.yaml line" in said.sentence


def test_layers_that_exist_are_adapted(lab: Lab) -> None:
    made = changed(lab.sft(1), "model.adapter", {"use": "lora", "modules": ["c_attn", "mlp.c_proj"]})
    assert lab.hookline("explain", lab.write(made)).code == 0
    assert lab.run(made).code == 0


def test_answers_beyond_the_model_s_positions(lab: Lab, say: Any) -> None:
    for made in (
        phase(lab, rollout={**GENERATE, "max_new_tokens": 64}),
        phase(lab, evaluate=[{"rollout": {**GENERATE, "max_new_tokens": 64}, "reward": "length"}]),
    ):
        refused(say(made), 2, "'generate' needs 65 positions", "max_new_tokens is 64; the model has 64 positions")
    made = changed(lab.sft(), "phases.0.rollout", {"use": "text", "path": "texts.jsonl", "length": 64})
    refused(say(changed(made, "phases.0.update.use", "causal-lm")), 2, "'text' needs 65 positions", "length is 64")


def test_figures_of_an_evaluation_that_its_rows_cannot_give(lab: Lab, say: Any) -> None:
    made = two(lab, {}, {"model": {"head": "reward"}, "rollout": PREFERENCES, "update": "bradley-terry"})
    made["phases"][1]["evaluate"] = [{"rollout": DATASET, "reward": ["pair-accuracy"]}]
    refused(say(made), 2, "'pair-accuracy' needs comparisons, but 'dataset' reads none", problems=1)
    good = copy.deepcopy(made)
    good["phases"][1]["evaluate"][0]["rollout"] = PREFERENCES
    path = lab.write(good)
    assert lab.hookline("explain", path).code == 0


@pytest.mark.parametrize("best", ["rewrad", {"figure": "rewrad", "lowest": True}])
def test_the_best_of_a_figure_nobody_logs(lab: Lab, say: Any, best: Any) -> None:
    said = say(phase(lab, save={"best": best}))
    refused(said, 2, "save.best: nothing in phase 'rl' logs 'rewrad'; did you mean 'reward'?", problems=1)
    refused(
        say(phase(lab, save={"best": "eval/length"})), 2, "no evaluation of phase 'rl' gives 'eval/length'", problems=1
    )
    refused(say(phase(lab, save={"best": "reward/lenght"})), 2, "did you mean 'reward/length'?", problems=1)


# -- nothing to learn from


EQUAL = """
import torch
from hookline import Component, hookimpl
class Equal(Component):
    name = "equal"
    @hookimpl
    def hookline_reward(self, rollout):
        return (rollout.group_B % SPREAD).float()
class Late(Component):
    name = "late"
    @hookimpl
    def hookline_reward(self, ctx, rollout):
        return torch.arange(len(rollout)).float() if ctx.step == 0 else torch.zeros(len(rollout))
"""


@pytest.mark.parametrize("update", ["grpo", "reinforce"])
def test_equal_rewards_under_an_update_that_brings_its_advantage(lab: Lab, update: str) -> None:
    made = phase(lab, reward="equal", advantage=None, update=update, patience=3, steps=9)
    said = lab.plugin_run(EQUAL.replace("SPREAD", "1"), made)
    refused(said, 6, "no learning signal: in 3 steps of phase 'rl' every reward was 0", "patience")


def test_comparisons_without_a_difference(lab: Lab) -> None:
    """Prompts differ, the answers to each never do: nothing is ever compared."""
    made = phase(lab, reward="equal", advantage=None, update="dpo", patience=3, steps=9)
    said = lab.plugin_run(EQUAL.replace("SPREAD", "97"), made)
    refused(said, 6, "no learning signal: in 3 steps of phase 'rl' each prompt's rewards were equal", "patience")


def test_rewards_that_differed_once_are_told_and_do_not_end_a_run(lab: Lab) -> None:
    """A policy that got as good as it can has nothing to learn either; the phases after it still count."""
    said = lab.plugin_run(EQUAL.replace("SPREAD", "1"), phase(lab, reward="late", patience=3, steps=6))
    assert said.code == 0, said.err
    assert said.err.count("in 3 steps of phase 'rl' every reward was 0: there is no learning signal now") == 1
