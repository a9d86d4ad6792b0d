"""Six shapes of folders × five methods on conversations: trained, exported, and read back by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hookline
from hookline.cli import main
from hookline.loop.api import open_finished
from shapes import SHAPES, WORDS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/real"
ASKED = [{"role": "user", "content": f"{a} the {b}"} for a, b in zip(WORDS, WORDS[3:])]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def rows(folder: Path) -> dict[str, str]:
    """The files of the five methods."""
    made = {
        "chat": [{"messages": [ask, said(f"To {ask['content']}."), ASKED[0], said("Done.")]} for ask in ASKED],
        "pairs": [
            {"prompt": [ask], "chosen": [said(f"To {ask['content']}.")], "rejected": [said("a list of data")]}
            for ask in ASKED
        ],
        "labels": [
            {"prompt": [ask], "completion": [said(text)], "label": good}
            for ask in ASKED
            for text, good in ((f"To {ask['content']}.", True), ("a list", False))
        ],
        "prompts": [{"prompt": [ask], "answer": "file"} for ask in ASKED],
    }
    found = {}
    for name, lines in made.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        found[name] = str(folder / f"{name}.jsonl")
    return found


def phases(files: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The phase of each method, in two steps."""
    lr = {"lr": 1e-2}
    return {
        "sft": {"rollout": {"use": "dataset", "path": files["chat"], "rows": 4}, "update": {"use": "sft", **lr}},
        "dpo": {"rollout": {"use": "preferences", "path": files["pairs"], "rows": 4}, "update": {"use": "dpo", **lr}},
        "kto": {
            "rollout": {"use": "dataset", "path": files["labels"], "rows": 8, "label": "label"},
            "update": {"use": "kto", **lr},
        },
        "rm": {
            "model": {"head": "reward"},
            "rollout": {"use": "preferences", "path": files["pairs"], "rows": 4},
            "update": {"use": "bradley-terry", **lr},
        },
        "grpo": {
            "rollout": {
                "use": "generate", "prompts": files["prompts"], "rows": 4, "samples_per_prompt": 4, "max_new_tokens": 8,
            },
            "reward": "letters",
            "update": {"use": "grpo", **lr},
        },
    }  # fmt: skip


LETTERS = """
import torch
from hookline import Component, hookimpl

class Letters(Component):
    name = "letters"

    @hookimpl
    def hookline_reward(self, rollout):
        return torch.tensor([float(len(set(rollout.response_text(i)))) for i in range(len(rollout))])
"""


def experiment(model: Path, method: str, phase: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": method,
        "seed": 1,
        "threads": 1,
        "model": {"path": str(model)},
        "trackers": [],
        "phases": [{"name": method, "steps": 2, **phase}],
    }


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_experiments_of_full_runs_fit_every_folder(
    path: Path, shelf_of_folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shape in SHAPES:
        assert main(["explain", str(path), f"model.path={shelf_of_folders / shape}"]) == 0
        said = capsys.readouterr().out
        assert f"conversations are rendered by {shelf_of_folders / shape}/chat_template.jinja" in said
        assert "first row" in said
        assert path.stem == "grpo" or "[[" in said


@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_goes_in_unchanged_and_comes_out_as_transformers_reads_it(
    shape: str, shelf_of_folders: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, files = shelf_of_folders / shape, rows(tmp_path)
    (tmp_path / "letters.py").write_text(LETTERS)
    before = AutoTokenizer.from_pretrained(source)
    for method, phase in phases(files).items():
        run = hookline.run(
            experiment(source, method, phase), out=tmp_path / method, plugins=[str(tmp_path / "letters.py")]
        )
        assert len(run.rows()) == 2, method
        assert not [notice for notice in run.notices if "rror" in notice]
        out = hookline.export(run, tmp_path / f"{method}-out")
        loaded = AutoTokenizer.from_pretrained(out)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
            assert (out / name).read_bytes() == (source / name).read_bytes(), (method, name)
        conversation = [ASKED[0], said("Done.")]
        rendered = [each.apply_chat_template(conversation, tokenize=False) for each in (loaded, before)]
        assert rendered[0] == rendered[1]
        assert f"| {method} | " in (out / "README.md").read_text()
        if method == "rm":
            scores_are_those_of_the_run(run, out, loaded)
            continue
        net = AutoModelForCausalLM.from_pretrained(out)
        ends = net.generation_config.eos_token_id
        named = [before.convert_tokens_to_ids(end) for end in SHAPES[shape].ends]
        assert sorted(ends if isinstance(ends, list) else [ends]) == sorted(named)
        with open_finished(hookline.Run.read(run.directory)) as loop, torch.no_grad():
            ids = torch.tensor([[before(text)["input_ids"] for text in ["To open the file."]][0]])
            ours = loop.phase.roles["policy"].net(input_ids=ids).logits
        torch.testing.assert_close(net(input_ids=ids).logits, ours)


def scores_are_those_of_the_run(run: Any, out: Path, tokenizer: Any) -> None:
    """transformers' scores of conversations, alone and padded in a batch, are the run's, less the head's bias."""
    from transformers import AutoModelForSequenceClassification

    net = AutoModelForSequenceClassification.from_pretrained(out)
    with open_finished(hookline.Run.read(run.directory)) as loop, torch.no_grad():
        role = loop.phase.roles["policy"]
        rows = [
            loop.ctx.encode({"prompt": [ask], "completion": [said(text)]})
            for ask, text in zip(ASKED, ("Done.", "To open the file."))
        ]
        batch = hookline.Rollout.build(loop.ctx, rows, source="test")
        ours = loop.ctx.stats(batch, want=("reward",))["reward"]
        bias = float(role.heads["reward"].inner.bias)
        for row, encoded in enumerate(rows):
            ids = torch.tensor([[*encoded.prompt_ids, *encoded.answer_ids]])
            last = len(encoded.answer_ids) - 1
            torch.testing.assert_close(net(input_ids=ids).logits[0, 0], ours[row, last] - bias)
        pad = net.config.pad_token_id
        if pad is not None:
            whole = [[*encoded.prompt_ids, *encoded.answer_ids] for encoded in rows]
            width = max(map(len, whole))
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in whole])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in whole])
            both = net(input_ids=ids, attention_mask=mask).logits[:, 0]
            lasts = [ours[row, len(encoded.answer_ids) - 1] - bias for row, encoded in enumerate(rows)]
            torch.testing.assert_close(both, torch.stack(lasts), atol=1e-5, rtol=1e-5)
