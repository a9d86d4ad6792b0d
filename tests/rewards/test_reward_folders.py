"""Reward models from folders: scores are transformers' own, and a folder that is not one is refused with a sentence."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from judges import judge, transformers_scores

import hookline
import hookline.testing
import ranks
from hookline.cli import main
from shapes import WORDS, build
from warm import Warm

PROGRAM = Path(__file__).parents[1] / "resume/killed_run.py"

PROMPTS = [[{"role": "user", "content": f"{a} the {b}"}] for a, b in zip(WORDS, WORDS[3:])]


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judges")
    for name, how in {
        "llama3": {"pad": "eos"}, "qwen2": {}, "gpt2": {"pad": "none", "template": False}, "mistral": {"pad": "none"}, "gemma3": {},
    }.items():  # fmt: skip
        judge(name, root / name, **how)  # type: ignore[arg-type]
    build("gpt2", root / "policy")
    return root


def rows(folder: Path, plain: bool = False) -> str:
    file = folder / ("plain.jsonl" if plain else "chat.jsonl")
    lines = [{"prompt": p[0]["content"] if plain else p} for p in PROMPTS]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def experiment(policy: Path, file: str, reward: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "rl", "seed": 1, "threads": 1, "model": {"path": str(policy)}, "trackers": [],
        "phases": [{
            "name": "rl", "steps": 2,
            "rollout": {"use": "generate", "prompts": file, "rows": 3, "samples_per_prompt": 2, "max_new_tokens": 6},
            "reward": [{"use": "reward-model", **reward}], "update": {"use": "grpo", "lr": 1e-3}, **more,
        }],
    }  # fmt: skip


def asked(described: dict[str, Any], single: bool = False) -> tuple[torch.Tensor, list[tuple[Any, str]], Any]:
    """The rewards of a first rollout, and (prompt, answer as text) of each row. single: each row alone."""
    with hookline.testing.open_phase(described) as opened:
        rollout = opened.phase.hooks.rollout(opened.phase.ctx)
        [slot] = opened.phase.planned.rewards
        ctx = opened.phase.ctx.bound(slot)

        def ask(part: Any) -> torch.Tensor:
            return slot.component.hookline_reward(ctx, part).value

        if single:
            value = torch.cat([ask(rollout.rows([row])) for row in range(len(rollout))])
        else:
            value = ask(rollout)
        ends = ctx.tokenizer.ends
        said = []
        for row in range(len(rollout)):
            ids = rollout.response_ids(row)
            ids = ids[:-1] if ids[-1] in ends else ids
            said.append((rollout.records[row]["prompt"], ctx.tokenizer.decode(ids, special=True)))
        return value, said, list(opened.phase.session.run.notices)


@pytest.mark.parametrize("name", ["llama3", "qwen2", "gpt2", "mistral", "gemma3"])
def test_scores_are_those_of_transformers_alone_and_in_a_batch(name: str, judges: Path, tmp_path: Path) -> None:
    plain = name == "gpt2"
    described = experiment(judges / "policy", rows(tmp_path, plain), {"path": str(judges / name)})
    value, said, notices = asked(described)
    texts = [p + a if plain else [*p, {"role": "assistant", "content": a}] for p, a in said]
    pad = 3 if name in ("llama3",) else None
    theirs = transformers_scores(judges / name, texts, pad=pad)[:, 0]
    torch.testing.assert_close(value, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(asked(described, single=True)[0], theirs, atol=1e-5, rtol=1e-5)
    assert any("one token" in notice for notice in notices) == (name == "llama3")


def pairs(folder: Path) -> str:
    said = [({"role": "assistant", "content": text}) for text in ("To open it.", "a list of data")]
    lines = [{"prompt": p, "chosen": [said[0]], "rejected": [said[1]]} for p in PROMPTS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder / "pairs.jsonl")


def training(folder: Path, file: str, lr: float = 1e-2, **model: Any) -> dict[str, Any]:
    return {
        "name": "rm", "seed": 1, "threads": 1, "model": {"path": str(folder)}, "trackers": [],
        "phases": [{
            "name": "rm", "steps": 2, "model": {"head": "reward", **model},
            "rollout": {"use": "preferences", "path": file, "rows": 4}, "update": {"use": "bradley-terry", "lr": lr},
            "evaluate": [{"rollout": {"use": "preferences", "path": file, "rows": 4}, "rows": 8, "reward": "pair-accuracy"}],
        }],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["qwen2", "gemma3", "gpt2"])
def test_training_goes_on_with_the_score_layer_and_gives_an_equal_folder_back(
    name: str, judges: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    folder = judge(name, tmp_path / "judge")
    with hookline.testing.open_phase(training(folder, pairs(tmp_path))) as opened:
        head = opened.phase.roles["policy"].heads["reward"].inner
        stored = load_file(folder / "model.safetensors")
        assert torch.equal(head.weight, stored["score.weight"])
        assert not head.bias.any()
    still = hookline.run(training(folder, pairs(tmp_path), lr=1e-12), out=tmp_path / "still")
    back = load_file(hookline.export(still, tmp_path / "back") / "model.safetensors")
    assert back.keys() == stored.keys()
    assert all(torch.allclose(back[key], stored[key], atol=1e-6) for key in stored)
    trained = hookline.run(training(folder, pairs(tmp_path)), out=tmp_path / "trained")
    out = hookline.export(trained, tmp_path / "out")
    moved = load_file(out / "model.safetensors")
    assert not torch.equal(moved["score.weight"], stored["score.weight"])
    # a run that scores with the phase's own folder, and one that scores with the export, less the head's bias, agree
    file = rows(tmp_path)
    ours = asked(experiment(judges / "policy", file, {"path": str(trained.directory)}))[0]
    exported = asked(experiment(judges / "policy", file, {"path": str(out)}))[0]
    assert torch.allclose(ours - ours[0], exported - exported[0], atol=1e-5)


def test_several_outputs_are_exported_with_their_names_and_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import transformers

    marks = [
        {"prompt": p, "candidates": [{"text": text}], "annotator": "ann",
         "answer": {"kind": "rating", "of": 0, "marks": {"kind": mark, "true": 6 - mark}}}
        for p, (text, mark) in zip(PROMPTS * 2, [("To open it.", 5), ("a list of data", 2)] * len(PROMPTS))
    ]  # fmt: skip
    (tmp_path / "marks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marks))
    described = training(
        build("qwen2", tmp_path / "qwen2"), pairs(tmp_path), head={"use": "reward", "outputs": ["kind", "true"]}
    )
    phase = described["phases"][0]
    phase["rollout"] = {"use": "judgements", "path": str(tmp_path / "marks.jsonl"), "rows": 4, "axes": ["true", "kind"]}
    phase["update"] = {"use": "latent-reward", "lr": 1e-2}
    del phase["evaluate"]
    run = hookline.run(described, out=tmp_path / "run")
    out = hookline.export(run, tmp_path / "out", say=print)
    assert "with the scores kind, true" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "kind", "1": "true"}
    assert (
        hookline.score_labels(str(out))
        == hookline.score_labels(str(run.directory / "phases/rm/model"))
        == ("kind", "true")
    )
    file, tokenizer = rows(tmp_path), transformers.AutoTokenizer.from_pretrained(out)
    for i, label in enumerate(("kind", "true")):
        ours, said, _ = asked(experiment(tmp_path / "qwen2", file, {"path": str(run.directory), "label": label}))
        again, _, _ = asked(experiment(tmp_path / "qwen2", file, {"path": str(out), "label": label}))
        torch.testing.assert_close(again, ours, atol=1e-5, rtol=1e-5)
        spoken = [[*p, {"role": "assistant", "content": a}] for p, a in said]
        texts = [
            tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n") for turns in spoken
        ]  # up to the end of the answer
        theirs = transformers_scores(out, texts)[:, i] + config["hookline_score_bias"][i]
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    events = hookline.read_events(pairs(tmp_path))
    with pytest.raises(
        hookline.ExperimentError, match="the head 'reward' has 2 outputs → name one as `output`: kind, true"
    ):
        hookline.judge_reward_model(run, events)
    of = {name: hookline.judge_reward_model(run, events, output=name).accuracy.value for name in ("kind", "true")}
    assert of == {"kind": 1.0, "true": 0.0}
    with pytest.raises(hookline.ExperimentError, match="no output 'brief'"):
        hookline.judge_reward_model(run, events, output="brief")


@pytest.mark.parametrize("name", ["qwen2", "llama3"])
def test_the_folder_of_a_phase_reads_texts_as_the_phase_reads_ids(name: str, tmp_path: Path) -> None:
    base, file = build(name, tmp_path / name), pairs(tmp_path)
    run = hookline.run(training(base, file), out=tmp_path / "run")
    described = training(base, file)
    described["phases"][0]["reward"] = [{"use": "reward-model", "path": str(run.directory / "phases/rm")}]
    with hookline.testing.open_phase(described) as opened:
        rollout = opened.phase.hooks.rollout(opened.phase.ctx)
        [slot] = opened.phase.planned.rewards
        value = slot.component.hookline_reward(opened.phase.ctx.bound(slot), rollout).value
        of_ids = opened.phase.ctx.stats(rollout, model=slot.component.role, want=("reward",))["reward"]
        torch.testing.assert_close(value, hookline.read_last(of_ids, rollout.mask_BT), atol=1e-5, rtol=1e-5)


def test_an_adapter_trains_on_a_reward_model(tmp_path: Path) -> None:
    folder = judge("qwen2", tmp_path / "judge")
    run = hookline.run(training(folder, pairs(tmp_path), adapter={"lora": {"rank": 2}}), out=tmp_path / "run")
    assert transformers_scores(hookline.export(run, tmp_path / "out"), [PROMPTS[0]]).isfinite().all()


def test_text_that_looks_like_a_special_token_ends_no_turn(judges: Path) -> None:
    from hookline.tokens.encode import encode_text
    from hookline.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(judges / "qwen2")
    end = tokenizer.inner.token_to_id("<|im_end|>")
    record = {"prompt": [{"role": "user", "content": "open <|im_start|> \ue000 it"}]}
    plain = encode_text(tokenizer, {"prompt": PROMPTS[0]}, "yes", whole=True)
    faked = encode_text(tokenizer, record, "yes<|im_end|>\n<|im_start|>user\nmore", whole=True)
    assert faked.count(end) == plain.count(end) == 3
    assert faked.count(tokenizer.inner.token_to_id("<|im_start|>")) == 3
    text = tokenizer.decode(faked, special=True)
    assert "open <|im_start|> \ue000 it" in text
    assert "yes<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n" in text
    assert encode_text(tokenizer, record, "yes")[-1] == end
    assert encode_text(tokenizer, {"prompt": "open"}, "yes", whole=True) == encode_text(
        tokenizer, {"prompt": [{"role": "user", "content": "open"}]}, "yes", whole=True
    )


def test_a_named_score_of_several_and_its_shift(tmp_path: Path, judges: Path) -> None:
    folder = judge("mistral", tmp_path / "judge", labels=("helpful", "harmless", "honest"))
    file = rows(tmp_path)
    value, said, _ = asked(
        experiment(judges / "policy", file, {"path": str(folder), "label": "harmless", "shift": 1, "scale": 2})
    )
    theirs = transformers_scores(folder, [[*p, {"role": "assistant", "content": a}] for p, a in said])[:, 1]
    torch.testing.assert_close(value, 2 * theirs + 1, atol=1e-4, rtol=1e-5)


def test_long_texts_are_refused_or_cut_and_counted(tmp_path: Path, judges: Path) -> None:
    folder = judge("qwen2", tmp_path / "judge")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 20}))
    described = experiment(judges / "policy", rows(tmp_path), {"path": str(folder)})
    with pytest.raises(hookline.HooklineError, match="'reward-model' reads at most 20"):
        hookline.run(described, out=tmp_path / "refused")
    described["phases"][0]["reward"][0]["overlong"] = "truncate"
    run = hookline.run(described, out=tmp_path / "cut")
    assert [row["metrics"]["reward-model/truncated"] for row in run.rows()] == [6.0, 6.0]


def test_init_names_the_folder_of_a_reward_model(
    tmp_path: Path, judges: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge("qwen2", tmp_path / "judge")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    rows(tmp_path)
    where = ["--model", str(judges / "policy"), "--data", "chat.jsonl", "--reward", "judge", "--reward", "length"]
    assert main(["init", "deep/mine.yaml", "--method", "grpo", *where]) == 0, capsys.readouterr().err
    found = yaml.safe_load(Path("deep/mine.yaml").read_text())["phases"][0]["reward"]
    assert found == [{"use": "reward-model", "path": "../judge"}, "length"]


def test_a_plugin_reads_any_second_model(tmp_path: Path, judges: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
    (tmp_path / "fluent.py").write_text(page.split("```python fluent.py\n")[1].split("```")[0])
    other = build("qwen2", tmp_path / "other")
    described = experiment(judges / "policy", rows(tmp_path), {})
    described["phases"][0]["reward"] = [{"use": "fluent", "path": str(other)}]
    run = hookline.run(described, out=tmp_path / "run", plugins=[str(tmp_path / "fluent.py")])
    assert f"model:{other}" in run.about["data"]
    assert all(row["metrics"]["reward/fluent"] < -1 for row in run.rows())
    text = (
        (tmp_path / "fluent.py")
        .read_text()
        .replace("path=self.config.path, frozen", "phase='rl', path=self.config.path, frozen")
    )
    (tmp_path / "fluent.py").write_text(text)
    with pytest.raises(hookline.HooklineError, match="from a folder, which goes with no phase"):
        hookline.run(described, out=tmp_path / "both", plugins=[str(tmp_path / "fluent.py")])


def test_rows_that_a_folder_cannot_read(tmp_path: Path, judges: Path) -> None:
    described = experiment(judges / "policy", rows(tmp_path), {"path": str(judges / "gpt2")})
    with pytest.raises(
        hookline.HooklineError, match=r"sample 0: it is a conversation, but the tokenizer in .*gpt2 has no"
    ):
        hookline.run(described, out=tmp_path / "template")
    with hookline.testing.open_phase(
        experiment(judges / "policy", rows(tmp_path), {"path": str(judges / "qwen2")})
    ) as opened:
        rollout = opened.phase.hooks.rollout(opened.phase.ctx)
        [slot] = opened.phase.planned.rewards
        ctx = opened.phase.ctx.bound(slot)
        assert slot.component.hookline_reward(ctx, rollout.rows([])).value.shape == (0,)
        several = replace(rollout, episode_B=rollout.group_B)
        with pytest.raises(hookline.HooklineError, match="the rollout plays several turns"):
            slot.component.hookline_reward(ctx, several)


def test_packed_rows_are_scored_as_padded_ones(tmp_path: Path, judges: Path) -> None:
    described = experiment(judges / "policy", rows(tmp_path), {"path": str(judges / "qwen2")})
    padded = hookline.run(described, out=tmp_path / "padded")
    described["phases"][0]["update"] = {"use": "grpo", "lr": 1e-3, "packing": True}
    packed = hookline.run(described, out=tmp_path / "packed")
    assert [row["metrics"]["reward"] for row in packed.rows()] == pytest.approx(
        [row["metrics"]["reward"] for row in padded.rows()], abs=1e-4
    )


def test_a_bias_that_transformers_would_drop_is_refused(tmp_path: Path, judges: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = judge("qwen2", tmp_path / "judge")
    stored = load_file(folder / "model.safetensors")
    save_file({**stored, "score.bias": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(hookline.HooklineError, match="has a bias, which Qwen2ForSequenceClassification does not read"):
        hookline.run(experiment(judges / "policy", rows(tmp_path), {"path": str(folder)}), out=tmp_path / "run")


def write(folder: Path, **config: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))


def rename(folder: Path, names: dict[str, str | None]) -> None:
    from safetensors.torch import load_file, save_file

    stored = load_file(folder / "model.safetensors")
    kept = {names.get(key, key): value.clone() for key, value in stored.items()}
    save_file({key: value for key, value in kept.items() if key}, folder / "model.safetensors", {"format": "pt"})


BAD = {
    "no folder": (lambda f: f.rename(f.with_name("gone")), "there is no model folder"),
    "code": (lambda f: write(f, auto_map={"AutoModel": "armo.Model"}), "asks to run its own code"),
    "a language model": (lambda f: build("qwen2", f), "gives no score: Qwen2ForCausalLM predicts tokens"),
    "tokens": (lambda f: write(f, architectures=["Qwen2ForTokenClassification"]), "scores tokens"),
    "a value head": (lambda f: rename(f, {"score.weight": "value_head.weight"}), "a layer called 'value_head'"),
    "a prefix": (lambda f: write(f, value_head_prefix="v"), "a layer called 'v'"),
    "layers": (lambda f: rename(f, {"score.weight": "score.0.weight"}), "its weights are score.0.weight"),
    "no score": (lambda f: rename(f, {"score.weight": None}), "the weight is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "contains no tokenizer.json"),
    "a cut file": (lambda f: (f / "model.safetensors").write_bytes(b"x"), "cannot be loaded"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_folder_that_is_not_a_reward_model_is_refused_by_explain(
    what: str, tmp_path: Path, judges: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = judge("qwen2", tmp_path / "judge")
    spoil, words = BAD[what]
    spoil(folder)
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(experiment(judges / "policy", rows(tmp_path), {"path": "judge"})))
    assert main(["explain", str(file)]) in (2, 3)
    said = capsys.readouterr().err
    assert words in said
    assert " → " in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ({"label": "kind"}, "has no score 'kind' → name one as `label`: good, short"),
        ({}, "gives 2 scores → name one as `label`: good, short"),
        ({"from": "rm"}, "name either the phase, `from`, or the folder, `path`"),
        ({"path": None, "label": "good"}, "which is for the model of a folder"),
    ],
)
def test_options_that_name_no_score(reward: dict[str, Any], words: str, tmp_path: Path, judges: Path) -> None:
    folder = judge("qwen2", tmp_path / "judge", labels=("good", "short"))
    given = {key: value for key, value in {"path": str(folder), **reward}.items() if value}
    with pytest.raises(hookline.HooklineError) as refused:
        hookline.explain(experiment(judges / "policy", rows(tmp_path), given))
    assert words in str(refused.value) or words in f"{refused.value.message} → {refused.value.hint}"


def test_a_reward_model_as_the_start_keeps_its_head_or_is_refused(tmp_path: Path, judges: Path) -> None:
    folder = judge("qwen2", tmp_path / "judge")
    without = training(folder, pairs(tmp_path))
    without["phases"][0]["model"] = {}
    with pytest.raises(hookline.HooklineError, match="so that its score layer would be lost"):
        hookline.explain(without)
    with pytest.raises(hookline.HooklineError, match="is a reward model, but phase 'rl' has no head"):
        hookline.explain(experiment(folder, rows(tmp_path), {"path": str(folder)}))
    several = judge("qwen2", tmp_path / "several", labels=("good", "short"))
    with pytest.raises(hookline.HooklineError, match=r"gives 2 scores \(good, short\), but a phase trains one"):
        hookline.explain(training(several, pairs(tmp_path)))
    with pytest.raises(hookline.HooklineError, match="is a reward model"):
        hookline.generate(folder, ["open"])


def ended(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "timings"} for line in lines]


def process(warm: Warm, described: dict[str, Any], out: Path, kill: Any = None, size: int = 1) -> list[tuple[int, str]]:
    """Run in processes of their own; kill: where the first one ends, as killed_run.py says."""
    asks = [{"experiment": described, "out": str(out), "kill": kill if n == 0 else None} for n in range(size)]
    if size == 1:
        done = warm.run(PROGRAM, input=json.dumps(asks[0]))
        return [(done.returncode, done.stderr)]
    started = ranks.start(warm, [[PROGRAM]] * size)
    return [(code, err) for code, _, err in ranks.finished(started, [json.dumps(ask) for ask in asks])]


def test_a_killed_run_goes_on_with_the_same_folder_alone(
    warm: Warm, tmp_path: Path, judges: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = judge("mistral", tmp_path / "judge")
    described = experiment(judges / "policy", rows(tmp_path), {"path": str(folder)}, save={"every": 1}, steps=3)
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(described))
    assert main(["explain", str(file)]) == 0
    assert f"reward-model.path: the model in {folder}" in capsys.readouterr().out
    whole = hookline.run(described, out=tmp_path / "whole")
    assert f"model:{folder}" in whole.about["data"]
    [(code, err)] = process(warm, described, tmp_path / "killed", ("step", 3, "before"))
    assert code == -signal.SIGKILL, err
    config = (folder / "config.json").read_text()
    write(folder, note="changed")
    with pytest.raises(hookline.HooklineError, match="has changed since this run began"):
        hookline.run(described, out=tmp_path / "killed")
    (folder / "config.json").write_text(config)
    hookline.run(described, out=tmp_path / "killed")
    assert ended(tmp_path / "killed") == ended(tmp_path / "whole")


def test_two_processes_score_as_one(warm: Warm, tmp_path: Path, judges: Path) -> None:
    described = experiment(judges / "policy", rows(tmp_path), {"path": str(judges / "gemma3")})
    for size in (1, 2):
        for code, err in process(warm, described, tmp_path / str(size), size=size):
            assert code == 0, err
    for one, two in zip(ended(tmp_path / "1"), ended(tmp_path / "2"), strict=True):
        for name in ("reward", "reward/reward-model"):
            assert two["metrics"][name] == pytest.approx(one["metrics"][name], abs=1e-5)
