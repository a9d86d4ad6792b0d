"""`hookline generate` and `hookline chat`: a run's model or a folder is asked, and stops where it ends its answers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from test_folders import ASKED, experiment, phases, rows

import hookline
from hookline.cli import main
from hookline.errors import DataError, ExperimentError
from hookline.study.speak import speaker


@pytest.fixture(scope="module")
def trained(shelf_of_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned to answer shortly."""
    folder = tmp_path_factory.mktemp("speaking")
    phase = phases(rows(folder))["sft"]
    phase["update"]["lr"] = 2e-2
    run = hookline.run(experiment(shelf_of_folders / "qwen2", "sft", {**phase, "steps": 60}), out=folder / "run")
    return run.directory


def test_a_run_and_its_export_give_the_same_answers_and_end_them(trained: Path, tmp_path: Path) -> None:
    asked = [[ask] for ask in ASKED[:3]]
    one = hookline.generate(trained, asked, max_new_tokens=40, temperature=0)
    folder = hookline.export(trained, tmp_path / "out")
    assert hookline.generate(folder, asked, max_new_tokens=40, temperature=0) == one
    assert hookline.generate(trained / "phases/sft", asked, max_new_tokens=40, temperature=0) == one
    assert any(answer.startswith("To ") for answer in one)
    assert not any("<|im" in answer for answer in one)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    net, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(asked[0], add_generation_prompt=True, return_tensors="pt", return_dict=False)
    theirs = net.generate(ids, max_new_tokens=40, do_sample=False, attention_mask=torch.ones_like(ids))
    assert tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True) == one[0]


def test_pieces_make_up_the_answer_and_a_conversation_grows(trained: Path) -> None:
    pieces: list[str] = []
    lines = iter(["open the file", "close", None])
    talk = hookline.chat(
        trained, lambda: next(lines), pieces.append, temperature=0, max_new_tokens=30, system="Be short."
    )
    assert [message["role"] for message in talk] == ["system", "user", "assistant", "user", "assistant"]
    assert "".join(pieces) == "".join(f"{message['content']}\n" for message in talk if message["role"] == "assistant")
    [whole] = speaker(trained).answers([{"prompt": talk[:2]}], hookline.Sampling(top_k=1), 30, 0)
    assert whole == talk[2]["content"]


def test_rows_go_in_and_come_out(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "asked.jsonl").write_text(
        "".join(json.dumps({"prompt": [ask], "id": i}) + "\n" for i, ask in enumerate(ASKED[:3]))
    )
    files = ["--rows", str(tmp_path / "asked.jsonl"), "--out", str(tmp_path / "said.jsonl")]
    code = main(["generate", str(trained), *files, "--temperature", "0", "--max-new-tokens", "20"])
    assert code == 0
    made = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [row["id"] for row in made] == [0, 1, 2]
    assert capsys.readouterr().out.splitlines() == [
        line for row in made for line in row["response"].splitlines() or [""]
    ]


def test_the_command_talks_until_an_empty_line(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("open the file\n\nnever read\n"))
    assert main(["chat", str(trained), "--temperature", "0", "--max-new-tokens", "20"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_conversation_that_has_filled_the_context_begins_anew(
    shelf_of_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pieces, notes = shelf_of_folders / "llama3", list[str](), list[str]()  # untrained: it answers as long as it may
    lines = iter(["open the file", "close", "read", "word " * 200, "write", None])
    talk = hookline.chat(folder, lambda: next(lines), pieces.append, system="Be short.", max_new_tokens=100, note=notes.append)
    assert [message["content"] for message in talk if message["role"] == "user"][-1] == "write"
    assert talk[0] == {"role": "system", "content": "Be short."}
    assert any(note == "the conversation has filled the model's context of 256 tokens and begins anew with this message" for note in notes)
    assert "this message is too long for the model's context of 256 tokens and is left out" in notes
    ours = speaker(folder)
    assert ours.room({"prompt": talk[:-1]}) >= 64
    said: list[str] = []
    short = iter(["word " * 200, None])
    assert hookline.chat(folder, lambda: next(short), said.append, max_new_tokens=9) == []
    assert said == ["[this message is too long for the model's context of 256 tokens and is left out]\n"]
    monkeypatch.setattr("sys.stdin", io.StringIO("open\n" + "word " * 200 + "\n\n"))
    assert main(["chat", str(folder), "--max-new-tokens", "1000"]) == 0
    assert "too long for the model's context" in capsys.readouterr().err


def test_what_is_typed_need_not_be_utf_8(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n\n"), encoding="utf-8", errors="surrogateescape"))
    assert main(["chat", str(trained), "--max-new-tokens", "2"]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n\n"), encoding="utf-8"))
    assert main(["chat", str(trained), "--max-new-tokens", "2"]) == 3
    assert "the message is not UTF-8 text" in capsys.readouterr().err


def test_a_template_is_named_by_the_file_that_it_is_from(shelf_of_folders: Path, tmp_path: Path) -> None:
    files, folder = rows(tmp_path), shelf_of_folders / "gemma3"
    run = hookline.run(experiment(folder, "sft", {**phases(files)["sft"], "steps": 1}), out=tmp_path / "run")
    twice = [[ASKED[0], ASKED[0]]]
    with pytest.raises(DataError, match=f"row 1: {folder}/chat_template.jinja refuses the conversation: roles must alternate"):
        hookline.generate(run, twice)
    (tmp_path / "mine.jinja").write_text((folder / "chat_template.jinja").read_text())
    described = experiment(folder, "sft", {**phases(files)["sft"], "steps": 1})
    described["tokenizer"] = {"path": str(folder), "chat_template": str(tmp_path / "mine.jinja")}
    run = hookline.run(described, out=tmp_path / "own")
    with pytest.raises(DataError, match=f"row 1: {tmp_path}/mine.jinja refuses the conversation"):
        hookline.generate(run, twice)


def test_what_cannot_be_asked_is_said(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(trained)]) == 3
    assert "there is nothing to answer" in capsys.readouterr().err
    assert main(["generate", str(tmp_path / "none"), "hello"]) == 2
    assert "there is no model folder" in capsys.readouterr().err
    assert main(["generate", str(trained), "--rows", str(tmp_path / "none.jsonl")]) == 3
    assert "no data file" in capsys.readouterr().err
    assert main(["generate", str(trained), "hello", "--out", str(tmp_path / "none" / "said.jsonl")]) == 3
    assert "said.jsonl cannot be written: No such file or directory" in capsys.readouterr().err
    with pytest.raises(DataError, match="room for"):
        hookline.generate(trained, ["open"], max_new_tokens=10_000)


def test_answers_get_what_a_small_context_leaves_unless_a_number_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = {
        "name": "small", "tokenizer": {"train": "bpe", "on": "builtin:keywords/sentences", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "heads": 2, "context": 48},
        "phases": [
            {"name": "p", "steps": 1, "rollout": {"use": "dataset", "path": "builtin:keywords/sentences", "rows": 4}, "update": "sft"}
        ],
        "trackers": [],
    }  # fmt: skip
    run = hookline.run(described, out=tmp_path / "run")
    capsys.readouterr()
    asked = ["open", "open the file and close it", "open"]
    notes: list[str] = []
    said = hookline.generate(run, asked, temperature=0, note=notes.append)
    left = [speaker(run).room({"prompt": text}) for text in asked]
    assert len(notes) == 1
    assert f"context of 48 tokens leaves {min(left)} to {max(left)} for an answer" in notes[0]
    assert said[0] == said[2]
    for text, answer, n in zip(asked, said, left):
        assert hookline.generate(run, [text], temperature=0, max_new_tokens=n) == [answer], "as if it were asked alone"
        with pytest.raises(DataError, match="room for"):
            hookline.generate(run, [text], max_new_tokens=n + 1)
    assert main(["generate", str(run.directory), "open", "--json"]) == 0
    shown = capsys.readouterr()
    assert "note: the model's context of 48 tokens leaves" in shown.err
    assert len(json.loads(shown.out)) == 1
    assert main(["generate", str(run.directory), "open", "--max-new-tokens", "256"]) == 3
    with pytest.raises(DataError, match="row 1"):
        hookline.generate(run, ["open " * 50])
    assert hookline.generate(run, []) == []
    assert hookline.generate(run, ["open"], max_new_tokens=0) == [""], "0 is a number that is given"


def test_a_folder_is_asked_the_evaluations_of_an_experiment(
    trained: Path, shelf_of_folders: Path, tmp_path: Path
) -> None:
    files = rows(tmp_path)
    held = {"rollout": {"use": "dataset", "path": files["chat"], "rows": 8}, "rows": 8, "reward": "perplexity"}
    described = experiment(shelf_of_folders / "qwen2", "sft", {**phases(files)["sft"], "evaluate": held})
    before = hookline.evaluate(shelf_of_folders / "qwen2", experiment=described)
    after = hookline.evaluate(trained, experiment=described, rows=4)
    exported = hookline.evaluate(hookline.export(trained, tmp_path / "out"), experiment=described, rows=4)
    assert [(each["figure"], each["rows"]) for each in (*before, *after)] == [("perplexity", 8), ("perplexity", 4)]
    assert after[0]["value"] < before[0]["value"] / 2
    assert exported[0]["value"] == pytest.approx(after[0]["value"], rel=1e-5)
    with pytest.raises(ExperimentError, match="no phase 'rl'"):
        hookline.evaluate(trained, "rl", experiment=described)


def test_what_is_streamed_is_what_is_generated(shelf_of_folders: Path) -> None:
    """Also where an answer ends within a character, as those of an untrained model do."""
    found, greedy = speaker(shelf_of_folders / "llama3"), hookline.Sampling(top_k=1)
    record = {"prompt": [ASKED[0]]}
    answers = [found.answers([record], greedy, n, 0)[0] for n in range(1, 9)]
    assert ["".join(found.stream(record, greedy, n, 0)) for n in range(1, 9)] == answers
    assert any(answer.endswith("\ufffd") for answer in answers), "the test tries what it is about"
    said = found.tokenizer.encode(answers[-1].rstrip("\ufffd"))
    stopping = hookline.Sampling(top_k=1, stop_token_ids=said[1])
    stopped = found.answers([record], stopping, 8, 0)[0]
    assert "".join(found.stream(record, stopping, 8, 0)) == stopped != answers[-1]
    assert answers[-1].startswith(stopped)
