"""Experiment files, overrides and `use:` names that cannot work (CF1 to CF26)."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
import yaml
from badinput_lab import Lab, changed, refused

import hookline


@pytest.fixture(params=["explain", "run"])
def verb(request: pytest.FixtureRequest) -> str:
    """Both refuse alike: what `explain` accepts, `run` can start."""
    return str(request.param)


def line_of(path: Path, text: str, nth: int = 1) -> int:
    found = [i for i, line in enumerate(path.read_text().splitlines(), 1) if text in line]
    return found[nth - 1]


def test_the_valid_experiment_is_accepted(lab: Lab) -> None:
    assert lab.hookline("explain", lab.write(lab.sft())).code == 0
    assert lab.hookline("explain", lab.write(lab.rl())).code == 0


def test_CF1_unknown_key_gets_the_nearest_name_and_its_line(lab: Lab, verb: str) -> None:
    path = lab.write(changed(lab.sft(), "phases.0.update.learning_rte", 1e-3))
    said = refused(lab.hookline(verb, path), 2, "'learning_rte'", "phases.sft.update", problems=1)
    assert said.problems[0].startswith(f"line {line_of(path, 'learning_rte')}: ")
    assert "learning_rate" not in said.err  # it is called lr: no such name is made up
    path = lab.write(changed(lab.sft(), "phases.0.stepz", 3))
    refused(lab.hookline(verb, path), 2, "'stepz'; did you mean 'steps'?", problems=1)
    path = lab.write(changed(lab.sft(), "sede", 3))
    refused(lab.hookline(verb, path), 2, "'sede'; did you mean 'seed'?", problems=1)


@pytest.mark.parametrize(
    ("at", "owner"),
    [
        ("options", "an experiment"),
        ("tokenizer.options", "tokenizer"),
        ("phases.0.options", "phases.sft"),
        ("phases.0.save.options", "phases.sft.save"),
        ("phases.0.update.options", "phases.sft.update"),
    ],
)
def test_CF1_a_key_called_options_is_wrong_like_any_other(lab: Lab, verb: str, at: str, owner: str) -> None:
    for value in (1, {"lr": 1}):
        path = lab.write(changed(lab.sft(), at, value))
        said = refused(lab.hookline(verb, path), 2, f"{owner} has no option 'options'", problems=1)
        assert said.problems[0].startswith(f"line {line_of(path, 'options')}: ")


def test_CF2_duplicate_key_names_both_lines(lab: Lab, verb: str) -> None:
    text = yaml.safe_dump(lab.sft(), sort_keys=False)
    path = lab.write(text.replace("    lr: 0.001\n", "    lr: 0.001\n      lr: 0.002\n".replace("      lr", "    lr")))
    second = line_of(path, "lr: 0.002")
    said = refused(
        lab.hookline(verb, path), 2, f"line {second}: 'lr' appears here and on line {second - 1}", problems=1
    )
    assert "keep one" in said.err


@pytest.mark.parametrize(
    ("value", "bound"),
    [("-1", "above 0"), ("0", "above 0"), (".nan", "finite"), (".inf", ""), ("1e400", ""), ("2", "at most 1")],
)
def test_CF4_lr_out_of_range_shows_the_bound(lab: Lab, value: str, bound: str) -> None:
    text = yaml.safe_dump(lab.sft(), sort_keys=False).replace("lr: 0.001", f"lr: {value}")
    path = lab.write(text)
    said = refused(lab.hookline("explain", path), 2, "phases.sft.update.lr is", bound, problems=1)
    assert said.problems[0].startswith(f"line {line_of(path, 'lr:')}: ")


@pytest.mark.parametrize(
    ("name", "problem"),
    [("true", "must be text, not True (quote it)"), ("12:30:45", "use letters"), ("0123", "must be text, not 123"),
     ("[a]", "must be text"), ("../up", "use letters"), ("''", "use letters"), ("~", "must be text, not None")],
)  # fmt: skip
def test_CF5_a_name_that_is_no_word(lab: Lab, name: str, problem: str) -> None:
    text = yaml.safe_dump(lab.sft(), sort_keys=False).replace("name: tiny", f"name: {name}")
    refused(lab.hookline("explain", lab.write(text)), 2, "line 1: name ", problem, problems=1)


def test_CF5_no_is_a_word_and_true_is_no_number(lab: Lab) -> None:
    text = yaml.safe_dump(lab.sft(), sort_keys=False)
    assert lab.hookline("explain", lab.write(text.replace("name: tiny", "name: no"))).code == 0
    for key in ("seed: 3", "steps: 4", "lr: 0.001"):
        word = key.partition(":")[0]
        said = lab.hookline("explain", lab.write(text.replace(key, f"{word}: yes")))
        refused(said, 2, word, "'yes'", problems=1)
        said = lab.hookline("explain", lab.write(text.replace(key, f"{word}: true")))
        refused(said, 2, f"{word} must be a number, not true", problems=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("# only a comment\n", ["is empty"]),
        ("- a\n- b\n", ["a list, not a mapping"]),
        ("just words\n", ["text, not a mapping"]),
        ("42\n", ["a number, not a mapping"]),
        ("~\n", ["nothing, not a mapping"]),
        ("name: a\n---\nname: b\n", ["line 2", "more than one YAML document"]),
        ("name: a\n\tseed: 1\n", ["line 2", "not YAML"]),
        ("name: [a, b\n", ["not YAML"]),
        ("name: 'a\n", ["not YAML"]),
        ("name: a\nseed: \x00\n", ["line 2", "#x00"]),
        ("name: a\nseed: *nowhere\n", ["line 2", "nowhere"]),
    ],
    ids=["empty", "comment", "list", "text", "number", "null", "two", "tab", "open", "quote", "nul", "alias"],
)
def test_CF7_what_is_no_single_mapping(lab: Lab, verb: str, text: str, words: list[str]) -> None:
    refused(lab.hookline(verb, lab.write(text)), 2, "tiny.yaml", *words)


def test_CF8_missing_folder_unreadable_and_odd_files_have_different_messages(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(lab.hookline("run", "nowhere.yaml"), 2, "no experiment file nowhere.yaml")
    refused(lab.hookline("run", lab.folder), 2, "is a folder")
    refused(lab.hookline("run", "a" * 300 + ".yaml"), 2, "cannot be read", "name too long")
    os.mkfifo(lab.folder / "pipe.yaml")
    refused(lab.hookline("run", "pipe.yaml"), 2, "is not a regular file")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("socket.yaml")
        refused(lab.hookline("run", "socket.yaml"), 2, "is not a regular file")
    lab.write("name: caf\xe9\n").write_bytes(b"name: x\nname2: caf\xe9\n")
    refused(lab.hookline("run", "tiny.yaml"), 2, "line 2", "not UTF-8 at byte 18")
    lab.write("x" * 300_000)
    refused(lab.hookline("run", "tiny.yaml"), 2, "300000 bytes", "check that it is the right file")
    path = lab.write(lab.sft())

    def denied(self: Path, *args: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    refused(lab.hookline("run", path), 2, "cannot be read: Permission denied", "permissions")


def test_CF10_alias_bombs_are_refused_at_once(lab: Lab) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 11))
    began = time.perf_counter()
    refused(lab.hookline("explain", lab.write(bomb)), 2, "tiny.yaml line", "values")
    refused(lab.hookline("explain", lab.write("a: &a [*a]\n")), 2, "tiny.yaml line 1", "contains itself")
    refused(lab.hookline("explain", lab.write("a: &a {b: {c: *a}}\n")), 2, "contains itself")
    assert time.perf_counter() - began < 3


@pytest.mark.parametrize("name", ["os.system", "hookline_plugins.algorithms.sft.SFT", "sft.SFT"])
def test_CF11_dotted_paths_name_no_component(lab: Lab, verb: str, name: str) -> None:
    path = lab.write(changed(lab.sft(), "phases.0.update.use", name))
    refused(lab.hookline(verb, path), 5, f"line {line_of(path, name)}", f"no update '{name}' is installed")


@pytest.mark.parametrize("name", ["os:system()", "./mine.py", "a/b", "a b", "__import__('os')", "$(reboot)", "../x"])
def test_CF11_paths_and_code_are_no_names(lab: Lab, name: str) -> None:
    path = lab.write(changed(lab.sft(), "phases.0.update.use", name))
    what = "name a function in it: ./mine.py:FUNCTION" if name == "./mine.py" else "not a path or a function"
    refused(lab.hookline("explain", path), 2, "phases.sft.update.use", what, problems=1)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['echo']", "!!python/name:os.system {}", "!mine 3", "!!binary aGk="]
)
def test_CF11_yaml_tags_make_nothing(lab: Lab, tag: str) -> None:
    text = yaml.safe_dump(lab.sft(), sort_keys=False) + f"threads2: {tag}\n"
    refused(lab.hookline("explain", lab.write(text)), 2, "tag", "plain values only", problems=2)


@pytest.mark.parametrize(
    ("value", "kind"), [("!!int abc", "int"), ("!!bool perhaps", "bool"), ("!!float ''", "float"), ("!!int ''", "int")]
)
def test_CF11_yaml_tags_that_lie(lab: Lab, value: str, kind: str) -> None:
    text = yaml.safe_dump(lab.sft(), sort_keys=False).replace("seed: 3", f"seed: {value}")
    refused(lab.hookline("explain", lab.write(text)), 2, "line 2: ", f"is not a valid {kind}", problems=2)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed.x=1", ["'seed' holds 3", "nothing can be set inside it"]),
        ("phases.sft.name.x.0.c=1", ["leads inside 'sft'"]),
        ("phases.sfx.steps=1", ["no item 'sfx'", "there are: sft"]),
        ("phases.7.steps=1", ["no item '7'"]),
        ("phases.²=1", ["no item '²'"]),
        ("phases." + "9" * 5000 + ".steps=1", ["no item"]),
        ("phases.sft.stepz=1", ["phases.sft.stepz=1: phases.sft has no option 'stepz'; did you mean 'steps'?"]),
        ("modle.width=3", ["modle.width=3: an experiment has no option 'modle'; did you mean 'model'?"]),
        ("phases.sft.update.lr=-1", ["phases.sft.update.lr=-1: phases.sft.update.lr is -1; it must be above 0"]),
        ("phases.sft.update=dpoo", ["phases.sft.update=dpoo: no update 'dpoo'"]),
        ("nothing", ["'nothing' is not an override"]),
        ("=3", ["is not an override"]),
        ("a..b=3", ["is not an override"]),
        (".".join("a" * 100) + "=3", ["is not an override"]),
    ],
)
def test_CF13_overrides_that_lead_nowhere(lab: Lab, override: str, words: list[str]) -> None:
    said = lab.hookline("explain", lab.write(lab.sft()), override)
    assert said.code in (2, 5), said.err
    assert len(said.errors) <= 2, said.err
    for word in words:
        assert word in said.err, said.err


def test_CF13_overrides_reach_short_forms_and_say_where_they_stand(lab: Lab) -> None:
    path = lab.write(changed(lab.sft(), "phases.0.update", "sft"))
    assert lab.hookline("explain", path, "phases.sft.update.lr=1e-4", "phases.sft.save.keep=1").code == 0
    said = lab.hookline("explain", path, "phases.sft.update.lr=2", "model.width=abc", "phases.sft.steps=0")
    refused(said, 2, "phases.sft.update.lr=2: ", "model.width=abc: ", "phases.sft.steps=0: ", problems=3)


@pytest.mark.parametrize("override", ["model=", "seed=", "phases.sft.steps= "])
def test_CF14_empty_override_values_show_how_to_quote(lab: Lab, override: str) -> None:
    said = lab.hookline("run", lab.write(lab.sft()), override)
    refused(said, 2, "gives no value", "shell", "in quotes", problems=1)


def test_CF14_override_values_are_read_as_strictly_as_the_file(lab: Lab) -> None:
    path = lab.write(lab.sft())
    refused(lab.hookline("run", path, "model={build: gpt2, width: 8, width: 16}"), 2, "'width' appears", problems=1)
    refused(lab.hookline("run", path, "model=" + "[" * 3000), 2, "tiny.yaml", problems=1)
    refused(lab.hookline("run", path, "seed=" + "1" * 5000), 2, "seed", problems=1)
    refused(lab.hookline("run", path, "model=!!python/name:os.system"), 2, "tag", problems=1)


def test_CF16_a_group_of_one_is_refused_where_groups_are_needed(lab: Lab) -> None:
    made = changed(lab.rl(), "phases.0.rollout.samples_per_prompt", 1)
    made["phases"][0]["feedback"] = "simulated-annotator"
    said = lab.hookline("explain", lab.write(made))
    refused(said, 2, "'simulated-annotator' needs several samples per prompt", "samples_per_prompt: 4", problems=1)


def test_CF17_tokens_beyond_the_context_are_counted(lab: Lab) -> None:
    refused(lab.run(lab.rl(), "phases.rl.rollout.max_new_tokens=64"), 2, "max_new_tokens is 64", "64 positions")
    lab.rows("pairs.jsonl", [{"prompt": "open"}, {"prompt": "close the " * 30}])
    said = lab.run(lab.rl())
    refused(said, 3, "pairs.jsonl row 2", "tokens", "with 4 new ones there is room for 60", "max_new_tokens")


def test_CF22_endless_numbers_and_nesting(lab: Lab) -> None:
    text = yaml.safe_dump(lab.sft(), sort_keys=False)
    huge = text.replace("seed: 3", f"seed: {'7' * 5000}")
    said = refused(lab.hookline("explain", lab.write(huge)), 2, "line 2: seed", problems=1)
    assert len(said.err) < 300
    for deep in ("[" * 100_000, "{a: " * 100_000, "a: " + "[" * 400 + "]" * 400):
        refused(lab.hookline("explain", lab.write(deep)), 2, "tiny.yaml")
    refused(lab.hookline("explain", lab.write("a: " + "[" * 100 + "]" * 100)), 2, "60 levels")


@pytest.mark.parametrize(
    ("seed", "problem"),
    [
        ("-1", "at least 0"),
        ("1.5", "a whole number"),
        (str(2**63), "below"),
        ("abc", "a whole number"),
        ("~", "number"),
    ],
)
def test_CF25_seeds_out_of_range(lab: Lab, seed: str, problem: str) -> None:
    refused(lab.hookline("explain", lab.write(lab.sft()), f"seed={seed}"), 2, "seed", problem, problems=1)


def test_CF25_the_seed_is_printed_and_kept(lab: Lab) -> None:
    said = lab.run(lab.sft(1), f"seed={2**63 - 1}")
    assert said.code == 0, said.err
    assert f"seed {2**63 - 1}" in said.out
    assert f'"seed": {2**63 - 1}' in (lab.run_folder / "experiment.json").read_text()


def test_CF26_a_thousand_wrong_keys_are_listed_capped_and_soon(lab: Lab) -> None:
    made = lab.sft()
    made |= {f"wrong{i}": i for i in range(1000)}
    path = lab.write(made)
    began = time.perf_counter()
    said = lab.hookline("explain", path)
    assert time.perf_counter() - began < 4
    refused(said, 2, "1000 problems in", "and 980 more", problems=21)


def test_CF26_all_mistakes_of_every_kind_in_one_message_in_order(lab: Lab, verb: str) -> None:
    text = """\
name: bad
seed: -1
sede: 3
tokenizer: {train: bpe, on: texts.jsonl, vocabulary: 280}
model: {build: gpt2, layers: 1, width: 32, context: 64}
phases:
  - name: sft
    rollout: {use: datset, path: pairs.jsonl}
    update: {use: sft, lr: .nan, lr: 2}
    stepz: 6
  - name: rl
    rollout: {use: generate, prompts: pairs.jsonl, rowz: 3}
    update: {use: ppo, epochs: true}
    advantage: {use: gae, gama: 3}
    steps: 5
    evaluate: {reward: [keyword-coverag]}
trackers: [consol]
"""
    said = lab.hookline(verb, lab.write(text), "phases.rl.steps=many")
    wanted = [
        "line 2: seed is -1; it must be at least 0",
        "line 3: an experiment has no option 'sede'; did you mean 'seed'?",
        "line 7: phases.sft.epochs is missing, and so is `steps`; say how long the phase is with one of them",
        "line 8: no rollout 'datset' is installed; did you mean 'dataset'?",
        "line 9: 'lr' appears here and on line 9; keep one",
        "line 9: phases.sft.update.lr is nan; it must be finite",
        "line 10: phases.sft has no option 'stepz'; did you mean 'steps'?",
        "line 12: phases.rl.rollout has no option 'rowz'; did you mean 'rows'?",
        "line 13: phases.rl.update.epochs must be a number, not true",
        "line 14: phases.rl.advantage has no option 'gama'; did you mean 'gamma'?",
        "line 17: no tracker 'consol' is installed; did you mean 'console'?",
    ]
    refused(said, 2, "12 problems in", "phases.rl.steps=many: ", problems=12)
    at = [next((i for i, line in enumerate(said.problems) if line.startswith(w)), w) for w in wanted]
    assert at == sorted(at, key=lambda i: (isinstance(i, str), i)), (at, said.err)
    assert not any(isinstance(i, str) for i in at), (at, said.err)
    assert not lab.run_folder.exists()
    assert not (lab.folder / "runs").exists()


def test_CF_from_names_an_earlier_phase(lab: Lab, verb: str) -> None:
    made = lab.sft()
    second = {**made["phases"][0], "name": "more", "model": {"from": "sfd"}}
    third = {**made["phases"][0], "name": "last", "model": {"from": "last"}}
    made["phases"] += [second, third]
    said = lab.hookline(verb, lab.write(made))
    refused(said, 2, "phase 'sfd' does not exist; did you mean 'sft'?", "phase 'last' comes later", problems=2)


def test_CF_an_unknown_split_gets_the_nearest_name(lab: Lab, verb: str) -> None:
    path = lab.write(changed(lab.rl(), "phases.0.rollout.prompts", "builtin:keywords/heldot"))
    said = refused(lab.hookline(verb, path), 3, "no split 'heldot'; did you mean 'heldout'?", "splits: ")
    assert f"tiny.yaml line {line_of(path, 'heldot')}" in said.sentence
    path = lab.write(changed(lab.rl(), "phases.0.rollout.prompts", "builtin:keyword"))
    refused(lab.hookline(verb, path), 5, "no task 'hookline:keyword'")


def test_CF_save_best_names_a_figure_that_exists(lab: Lab, verb: str) -> None:
    made = lab.rl(save={"best": "eval/lenght"}, evaluate=[{"prompts": "pairs.jsonl", "rows": 2, "reward": ["length"]}])
    said = lab.hookline(verb, lab.write(made))
    refused(said, 2, "gives 'eval/lenght'; did you mean 'eval/length'?", problems=1)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("phases", {}, "phases must be a list"),
        ("phases", [], "phases is empty"),
        ("phases", [3], "must be a mapping"),
        ("phases.0.rollout", ["text"], "must be a mapping"),
        ("phases.0.rollout", 5, "must be a mapping"),
        ("phases.0.rollout", {}, "phases.sft.rollout.use is missing"),
        ("phases.0.save", [1], "must be a mapping"),
        ("phases.0.evaluate", 3, "must be a list"),
        ("model", "gpt2", "must be a mapping"),
        ("model", {}, "either model.build or model.path"),
        ("model.adapter", {"lora": 3}, "must have the options of 'lora' in a mapping"),
        ("model.adapter", {"use": "sft"}, "no model 'sft'"),
        ("model.dtype", "float8", "'float32'"),
        ("tokenizer", {"train": "wordpiece", "on": "texts.jsonl"}, "'bpe'"),
        ("tokenizer", {"train": "bpe"}, "needs `on:`"),
        ("tokenizer", None, "names no tokenizer"),
        ("trackers", [{"name": "x"}], "trackers.x.use is missing"),
        ("plugins", ["./gone.py"], "no plugin file ./gone.py"),
        ("threads", 0, "at least 1"),
    ],
)
def test_CF_wrong_shapes_are_told_in_the_users_words(lab: Lab, path: str, value: object, words: str) -> None:
    said = lab.hookline("explain", lab.write(changed(lab.sft(), path, value)))
    assert said.code in (2, 5), said.err
    assert words in said.err, said.err
    assert 1 <= len(said.errors) <= 3, said.err


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("device", "gpu", "device is 'gpu'; it must be auto, cpu, cuda, cuda:N or mps"),
        ("phases.0.evaluate", [{"every": -1}], "phases.sft.evaluate.heldout.every is -1"),
        ("phases.0.evaluate", [{"name": "own", "every": -1}], "phases.sft.evaluate.own.every is -1"),
        ("phases.0.reward", [{"use": "hookline:length", "fre": 1}], "phases.sft.reward.length has no option 'fre'"),
        ("model.heads", 5, "model: width 32 is not a multiple of its 5 heads"),
        ("phases.0.update", None, "phases.sft does not update weights or collect feedback"),
    ],
)
def test_a_problem_names_its_place_as_people_do(lab: Lab, path: str, value: object, words: str) -> None:
    refused(lab.hookline("explain", lab.write(changed(lab.sft(), path, value))), 2, words, problems=1)


def test_usage_errors_are_one_line(lab: Lab) -> None:
    for arguments, verb in (
        (["run"], "run "),
        (["runn"], ""),
        (["run", "a.yaml", "--nope"], "run "),
        (["eval"], "eval "),
        (["plugins", "what"], "plugins "),
    ):
        said = lab.hookline(*arguments)
        refused(said, 2, f"→ hookline {verb}--help")
    refused(lab.hookline("eval", "x", "--rows", "0"), 2, "--rows is '0'; it must be at least 1", "hookline eval --help")
    refused(lab.hookline("plugins", "show", "nosuch"), 2, "no plugin 'nosuch'", "plugins list")


def test_exit_codes_of_commands_reach_the_shell(lab: Lab) -> None:
    broken = lab.plugin("from hookline import Component, hookimpl\nclass Odd(Component):\n    @hookimpl\n"
                        "    def hookline_reward(self, rollout, *more):\n        return 1\n")  # fmt: skip
    said = lab.hookline("plugins", "show", "mine", "-p", broken)
    assert said.code == 5, (said.out, said.err)
    assert "takes *more" in said.out


def components(part: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where a component is named with options."""
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    own = [path] if isinstance(part, dict) and "use" in part else []
    return own + [found for key, inner in items for found in components(inner, (*path, key))]


MAIN_JOB = Path(__file__).parents[2] / "examples" / "keyword-phrases.yaml"


@pytest.mark.parametrize("wrong", [{"nosuchoption": 1}, {"use": "nosuch"}], ids=["option", "name"])
def test_one_mistake_is_told_once_and_nothing_that_only_follows_from_it(wrong: dict[str, object]) -> None:
    text = MAIN_JOB.read_text()
    places = {[key for key in path if isinstance(key, str)][-1]: path for path in components(yaml.safe_load(text))}
    assert {"rollout", "update", "reward", "feedback", "advantage", "wrap"} <= places.keys()
    for path in places.values():  # the last of each kind
        described = yaml.safe_load(text)
        place = described
        for key in path:
            place = place[key]
        place.update(wrong)
        with pytest.raises(hookline.HooklineError) as caught:
            hookline.explain(described)
        sentences = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
        assert all("nosuch" in line for line in sentences), (path, sentences)
