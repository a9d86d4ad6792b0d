"""Damaged checkpoints and run directories (CK1 to CK32, PR8, PR19): named, passed over where a whole one is left, never lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from badinput_lab import Lab, Said, changed, refused

STOPS = """
from pathlib import Path
from hookline import Component, hookimpl

class Stops(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        at = int(Path("at").read_text()) if Path("at").exists() else 3
        if ctx.step == at and not Path("go").exists():
            raise RuntimeError("enough")
        return (yield)
"""


@pytest.fixture
def stopped(lab: Lab) -> Lab:
    """A run of four steps that broke off in its fourth, with the checkpoints of steps 1, 2 and 3."""
    lab.plugin(STOPS, "stops.py")
    made = lab.sft()
    made["phases"][0]["wrap"] = "stops"
    made["plugins"] = ["./stops.py"]
    said = lab.run(made)
    assert said.code == 5, said.err
    assert [p.name for p in lab.checkpoints()] == ["sft-00000001", "sft-00000002", "sft-00000003"]
    (lab.folder / "go").touch()
    return lab


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The weights and rows that an undisturbed run ends with."""
    folder = tmp_path_factory.mktemp("whole")
    before = Path.cwd()
    os.chdir(folder)
    try:
        lab = Lab(folder, lambda: ("", ""))
        from badinput_lab import WORDS

        lab.rows("texts.jsonl", [{"text": f"To {a} the {b}."} for a, b in zip(WORDS * 2, WORDS[3:] * 3)])
        pairs = [{"prompt": a, "completion": f"To {a} a {b}."} for a, b in zip(WORDS, WORDS[5:] + WORDS)]
        lab.rows("pairs.jsonl", pairs)
        assert lab.run(lab.sft()).code == 0
        return {"weights": lab.weights(), "rows": figures(lab)}
    finally:
        os.chdir(before)


def figures(lab: Lab) -> bytes:
    rows = [json.loads(line) for line in (lab.run_folder / "metrics.jsonl").read_text().splitlines()]
    return json.dumps([{k: row[k] for k in ("row", "phase", "step", "metrics")} for row in rows]).encode()


def same(lab: Lab, whole: dict[str, bytes]) -> None:
    assert lab.weights() == whole["weights"]
    assert figures(lab) == whole["rows"]


def flip(path: Path, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def passed_over(said: Said, *words: str) -> None:
    assert said.code == 0, said.err
    notes = [line for line in said.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1, said.err
    for word in (*words, "skipped"):
        assert word in notes[0], said.err


def test_CK1_one_flipped_bit_in_any_file_is_found(stopped: Lab) -> None:
    newest = stopped.checkpoints()[-1]
    dice = random.Random(0)
    from hookline.errors import CheckpointError
    from hookline.storage import folders

    for path in files(newest):
        kept = path.read_bytes()
        for bit in {0, len(kept) * 8 - 1, *(dice.randrange(len(kept) * 8) for _ in range(12))}:
            flip(path, bit)
            with pytest.raises(CheckpointError, match=newest.name):
                folders.verify(newest)
            path.write_bytes(kept)
    assert folders.verify(newest)["step"] == 3


@pytest.mark.parametrize("what", ["role-policy.safetensors", "trainer.json", "core.json", "manifest.json"])
def test_CK1_a_flipped_bit_is_named_and_the_one_before_gives_the_same_end(
    stopped: Lab, whole: dict[str, bytes], what: str
) -> None:
    path = stopped.checkpoints()[-1] / what
    flip(path, random.Random(what).randrange(path.stat().st_size * 8))
    passed_over(stopped.run(), what, "sft-00000003")
    same(stopped, whole)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_CK2_a_truncated_file_is_named_and_passed_over(stopped: Lab, whole: dict[str, bytes], share: float) -> None:
    path = stopped.checkpoints()[-1] / "role-policy.safetensors"
    size = path.stat().st_size
    os.truncate(path, int(size * share))
    passed_over(stopped.run(), f"role-policy.safetensors has {int(size * share)} bytes", f"its manifest lists {size}")
    same(stopped, whole)


def test_CK2_two_damaged_ones_are_both_named(stopped: Lab, whole: dict[str, bytes]) -> None:
    for folder in stopped.checkpoints()[1:]:
        os.truncate(folder / "trainer.json", 1)
    said = stopped.run()
    assert said.code == 0, said.err
    assert "sft-00000003" in said.err
    assert "sft-00000002" in said.err
    same(stopped, whole)


def test_CK4_zeros_are_called_zeros(stopped: Lab) -> None:
    path = stopped.checkpoints()[-1] / "role-policy.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    passed_over(stopped.run(), "is all zeros (a crash while it was written?)")


def test_CK5_missing_and_extra_files_are_named(stopped: Lab) -> None:
    newest = stopped.checkpoints()[-1]
    (newest / "role-policy.safetensors").unlink()
    extra = stopped.checkpoints()[-2] / "role-policy-2.safetensors"
    extra.write_bytes(b"x")
    said = stopped.run()
    assert said.code == 0, said.err
    assert "role-policy.safetensors is missing; skipped" in said.err
    assert "role-policy-2.safetensors is not listed in the folder's manifest" in said.err


@pytest.mark.parametrize("how", ["truncated", "no manifest", "empty manifest", "list", "nested", "no format"])
def test_CK7_only_damaged_ones_are_refused_and_nothing_is_begun_anew(stopped: Lab, how: str) -> None:
    for folder in stopped.checkpoints():
        manifest = folder / "manifest.json"
        match how:
            case "truncated":
                os.truncate(folder / "core.json", 1)
            case "no manifest":
                manifest.unlink()
            case "empty manifest":
                manifest.write_text("")
            case "list":
                manifest.write_text("[1, 2]")
            case "nested":
                manifest.write_text("[" * 100_000)
            case "no format":
                manifest.write_text('{"files": {}, "step": 3, "rows": 3}')
    before = stopped.contents("lock")
    said = refused(
        stopped.run(), 4, "every checkpoint of phase 'sft' is damaged", "sft-00000001", "to begin the phase again"
    )
    assert stopped.contents("lock") == before
    shutil.rmtree(stopped.run_folder / "checkpoints")  # what the sentence says
    said = stopped.run()
    assert said.code == 0, said.err


def test_CK8_strange_names_among_checkpoints_are_not_looked_at(stopped: Lab, whole: dict[str, bytes]) -> None:
    (stopped.run_folder / "checkpoints" / "latest").write_text("")
    (stopped.run_folder / "checkpoints" / "sft-newest").mkdir()
    (stopped.run_folder / "checkpoints" / ".sft-00000004.aside").mkdir()
    assert stopped.run().code == 0
    same(stopped, whole)


def test_CK10_another_architecture_in_a_checkpoint_names_tensors_and_shapes(stopped: Lab) -> None:
    from hookline.storage import folders, trees

    newest = stopped.checkpoints()[-1]
    manifest = folders.verify(newest)
    tree = trees.load_tree(newest, "role-policy")
    kept = {path.name: path.read_bytes() for path in files(newest)}
    name = next(n for n, t in tree["tensors"].items() if t.dim() == 2)
    tree["tensors"][name] = tree["tensors"][name].T.contiguous()[:, :3]
    about = {key: manifest[key] for key in ("phase", "step", "rows")}
    with folders.write_aside(newest, about) as aside:
        for file, raw in kept.items():
            if file != "manifest.json" and not file.startswith("role-policy"):
                (aside / file).write_bytes(raw)
        trees.save_tree(aside, "role-policy", tree)
    refused(stopped.run(), 4, "is not that of role 'policy'", name, "≠", "sft-00000003")


def test_CK11_a_newer_format_is_refused(stopped: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from hookline.storage import folders

    for folder in stopped.checkpoints():
        manifest = folders.verify(folder)
        monkeypatch.setattr(folders, "FORMAT", 99)
        values = {**manifest, "format": 99}
        (folder / "manifest.json").write_text(json.dumps({**values, "sha256": folders._own_hash(values)}))
        monkeypatch.setattr(folders, "FORMAT", 1)
    refused(stopped.run(), 4, "has format 99, this Hookline reads 1")


def test_CK13_names_that_leave_the_folder_are_refused(stopped: Lab) -> None:
    from hookline.storage import folders

    newest = stopped.checkpoints()[-1]
    outside = stopped.run_folder / "checkpoints" / "secret"
    outside.write_text("x")
    manifest = folders.verify(newest)
    manifest["files"]["../secret"] = {"bytes": 1, "sha256": folders.file_hash(outside)}
    (newest / "manifest.json").write_text(json.dumps({**manifest, "sha256": folders._own_hash(manifest)}))
    passed_over(stopped.run(), "../secret is missing")


def test_CK19_a_finished_run_says_so_and_stays_as_it_is(lab: Lab) -> None:
    assert lab.run(lab.sft(2)).code == 0
    before = lab.contents("lock")
    times = {path: path.stat().st_mtime_ns for path in files(lab.run_folder) if path.name != "lock"}
    said = lab.run()
    assert said.code == 0, said.err
    assert "already complete: 2 steps in 1 phase; the model is in" in said.out
    assert str(lab.run_folder / "phases" / "sft") in said.out
    assert said.err == ""
    assert lab.contents("lock") == before
    assert {path: path.stat().st_mtime_ns for path in files(lab.run_folder) if path.name != "lock"} == times


def test_CK19_a_finished_run_whose_model_was_damaged_is_not_called_complete(lab: Lab) -> None:
    assert lab.run(lab.sft(1)).code == 0
    flip(lab.run_folder / "phases" / "sft" / "model" / "model.safetensors", 99_999)
    refused(lab.run(), 4, "model.safetensors does not match its hash")
    refused(lab.hookline("export", lab.run_folder, "out"), 4, "model.safetensors does not match its hash")


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("seed", 4, "seed was 3, is 4"),
        ("phases.0.update.lr", 0.01, "phases.sft.update.options.lr was 0.001, is 0.01"),
        ("model.width", 48, "model.build.options.width was 32, is 48"),
    ],
)
def test_CF20_another_experiment_lists_what_differs_with_old_and_new(
    stopped: Lab, path: str, value: Any, shown: str
) -> None:
    before = stopped.contents("lock")
    made = changed(json.loads(json.dumps(stopped.sft())), path, value)
    made["phases"][0]["wrap"] = "stops"
    made["plugins"] = ["./stops.py"]
    refused(stopped.run(made), 4, "holds a run of another experiment", shown, "--out")
    assert stopped.contents("lock") == before


def test_CF20_fewer_steps_than_were_taken_are_refused(stopped: Lab) -> None:
    before = stopped.contents("lock")
    made = {**stopped.sft(2), "plugins": ["./stops.py"]}
    made["phases"][0]["wrap"] = "stops"
    refused(stopped.run(made), 4, "has taken 3 steps, so it cannot have 2", "give more than 3")
    assert stopped.contents("lock") == before


def test_CF20_several_differences_are_all_listed_and_phases_by_name(stopped: Lab) -> None:
    made = stopped.sft(5, lr=0.5)
    made["plugins"] = ["./stops.py"]
    refused(stopped.run(made), 4, "steps was 4, is 5", "lr was 0.001, is 0.5", "wrap was")
    made["phases"].append({**made["phases"][0], "name": "more"})
    refused(stopped.run(made), 4, "phases were sft; are sft, more")


def test_CF20_what_changes_no_result_may_change(stopped: Lab, whole: dict[str, bytes]) -> None:
    said = stopped.run(None, "phases.sft.save.keep=1", "trackers=[jsonl]")
    assert said.code == 0, said.err
    same(stopped, whole)


def test_a_start_that_came_to_nothing_may_be_mended(lab: Lab) -> None:
    refused(lab.run(lab.rl(), "phases.rl.rollout.max_new_tokens=63"), 3, "room for 1")
    said = lab.run(lab.rl(), "phases.rl.rollout.max_new_tokens=3", "seed=9")
    assert said.code == 0, said.err


def test_CF19_and_PR19_a_run_in_use_names_its_holder(lab: Lab) -> None:
    assert lab.run(lab.sft(1)).code == 0
    holder = lab.process(
        prelude=f"import fcntl, sys\nf = open({str(lab.run_folder / 'lock')!r})\n"
        "fcntl.flock(f, fcntl.LOCK_EX)\nprint('held', flush=True)\nsys.stdin.read()\nsys.exit()",
    )
    assert holder.stdout.readline() == "held\n"
    before = lab.contents()
    said = refused(lab.run(), 4, "is in use by process", f"process {os.getpid()} on", "since", "another --out")
    assert lab.contents() == before
    holder.communicate("")
    assert lab.run().code == 0, said.err


def test_CF19_the_lock_goes_with_every_ending(lab: Lab) -> None:
    refused(lab.run(lab.sft(), "phases.sft.rollout.longest=1"), 3, "0 of 12 rows")
    with (lab.run_folder / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_CK22_a_directory_that_cannot_be_written_is_known_at_the_start(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = Path.write_text

    def denied(self: Path, *args: Any, **more: Any) -> int:
        if self.name == ".probe":
            raise OSError(number, os.strerror(number))
        return real(self, *args, **more)

    monkeypatch.setattr(Path, "write_text", denied)
    refused(lab.run(lab.sft()), 4, f"run cannot be written: {os.strerror(number)}", "--out")


def test_CK22_directories_that_are_none(lab: Lab) -> None:
    path = lab.write(lab.sft(1))
    refused(lab.hookline("run", path, "--out", "pairs.jsonl"), 4, "pairs.jsonl cannot be written: it is a file")
    refused(lab.hookline("run", path, "--out", "pairs.jsonl/x"), 4, "Not a directory")
    refused(lab.hookline("run", path, "--out", "x" * 300), 4, "name too long")
    (lab.folder / "mine").mkdir()
    (lab.folder / "mine" / "thesis.tex").touch()
    refused(
        lab.hookline("run", path, "--out", "mine"),
        4,
        "is not empty and is not a Hookline run directory (it contains thesis.tex, …)",
    )
    for verb in (["eval"], ["export"]):
        more = ["out"] if verb == ["export"] else []
        refused(lab.hookline(*verb, "mine", *more), 4, "mine is not a run directory", "hookline run")
        refused(lab.hookline(*verb, "gone", *more), 4, "gone is not a run directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_CK22_a_read_only_directory(lab: Lab) -> None:
    lab.run_folder.mkdir(mode=0o500)
    refused(lab.run(lab.sft()), 4, "Permission denied")


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("run.json", b"", "run.json cannot be read"),
        ("run.json", b"[]", "it holds a list"),
        ("run.json", b"{}", "run.json lacks 'id'"),
        ("experiment.json", b'{"name": ', "experiment.json cannot be read"),
        ("experiment.json", b"\xff\xfe", "experiment.json cannot be read"),
        ("metrics.jsonl", b'{"row": 0}\nnonsense\n{"row": 2}\n', "metrics.jsonl line 2 is damaged"),
        ("metrics.jsonl", b'{"row": 0}\n[]\n', "metrics.jsonl line 2 is damaged"),
        ("metrics.jsonl", b"", "has 0 rows, but the checkpoint was made after 3"),
        ("evaluations.jsonl", b"{}\n", "evaluations.jsonl line 1 is damaged"),
        ("journal.jsonl", b'{"key": [1]}\n', "journal.jsonl line 1 is damaged"),
        ("tokenizer/tokenizer.json", b"{}", "tokenizer.json has 2 bytes"),
    ],
)
def test_CK_other_files_of_a_run_that_are_damaged(stopped: Lab, name: str, raw: bytes, words: str) -> None:
    (stopped.run_folder / name).write_bytes(raw)
    checkpoints = {p: p.read_bytes() for f in stopped.checkpoints() for p in files(f)}
    refused(stopped.run(), 4, words)
    assert {p: p.read_bytes() for f in stopped.checkpoints() for p in files(f)} == checkpoints


def test_CK_rows_that_a_kill_cut_off_are_made_again(stopped: Lab, whole: dict[str, bytes]) -> None:
    with (stopped.run_folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"row": 3, "phase": "sft", "st')
    assert stopped.run().code == 0
    same(stopped, whole)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"rows": 4.0', '"rows": 5.0', 1),
        lambda text: "".join(sorted(text.splitlines(keepends=True), reverse=True)),
        lambda text: text + text.splitlines(keepends=True)[0],
    ],
    ids=["a-figure", "order", "a-line-twice"],
)
def test_CK_rows_that_were_edited_are_not_believed(stopped: Lab, edit: Callable[[str], str]) -> None:
    """The manifest of a save holds the hash of the rows before it; nothing is cut or written."""
    path = stopped.run_folder / "metrics.jsonl"
    path.write_text(edit(path.read_text()))
    edited = path.read_bytes()
    refused(stopped.run(), 4, "metrics.jsonl is not as this run wrote it: lines before the newest save have changed")
    assert path.read_bytes() == edited


def test_CK_edited_evaluations_are_not_believed(lab: Lab) -> None:
    lab.plugin(STOPS, "stops.py")
    made = lab.sft()
    made["plugins"] = ["./stops.py"]
    evaluate = [{"every": 1, "prompts": "pairs.jsonl", "rows": 4, "reward": ["length"]}]
    made["phases"][0] |= {"wrap": "stops", "evaluate": evaluate}
    assert lab.run(made).code == 5
    path = lab.run_folder / "evaluations.jsonl"
    path.write_text(path.read_text().replace("To ", "Go ", 1))
    refused(lab.run(), 4, "evaluations.jsonl is not as this run wrote it")


def test_CK_a_phase_that_was_lost_cuts_nothing(lab: Lab) -> None:
    """Not even where the later phase has neither ended nor saved."""
    lab.plugin(STOPS.replace("else 3", "else 0"), "stops.py")
    made = lab.sft()
    made["plugins"] = ["./stops.py"]
    made["phases"].append({**made["phases"][0], "name": "more", "wrap": "stops", "evaluate": [
        {"every": 1, "prompts": "pairs.jsonl", "rows": 4, "reward": ["length"]}
    ]})  # fmt: skip
    assert lab.run(made).code == 5
    assert not [path for path in lab.checkpoints() if path.name.startswith("more")]
    shutil.rmtree(lab.run_folder / "phases/sft")
    before = {path: path.read_bytes() for path in lab.run_folder.glob("*.jsonl")}
    assert len(before) == 3
    refused(lab.run(), 4, "phases/sft is missing, but the later phase 'more' has begun")
    assert {path: path.read_bytes() for path in lab.run_folder.glob("*.jsonl")} == before


def test_CK_a_run_that_had_ended_is_not_made_again_over_its_rows(lab: Lab) -> None:
    assert lab.run(lab.sft(2)).code == 0
    shutil.rmtree(lab.run_folder / "phases")
    before = (lab.run_folder / "metrics.jsonl").read_bytes()
    refused(lab.run(), 4, "phases/sft is missing, but the phase had ended", "start a new run with --out")
    assert (lab.run_folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("command", ["eval", "export", "compare", "reproduce"])
def test_CK_a_run_without_an_identity_is_refused_by_every_command(lab: Lab, command: str) -> None:
    assert lab.run(lab.sft(2)).code == 0
    (lab.run_folder / "run.json").write_text("{}")
    said = lab.hookline(command, "run", *{"export": ["out"], "reproduce": ["--out", "out"]}.get(command, []))
    refused(said, 4, "run.json lacks 'id'")


def test_CK_an_answer_behind_a_torn_journal_line_is_kept(tmp_path: Path) -> None:
    from hookline.storage.journal import Journal
    from hookline.storage.lines import cut_torn_line

    path = tmp_path / "journal.jsonl"
    Journal(path).add(["judge", 1], 0.5)
    with path.open("ab") as file:
        file.write(b'{"key": ["judge", 2], "va')
    cut_torn_line(path)  # as every start does
    Journal(path).add(["judge", 3], 0.25)
    assert Journal(path).find(["judge", 1]) == (True, 0.5)
    assert Journal(path).find(["judge", 2]) == (False, None)
    assert Journal(path).find(["judge", 3]) == (True, 0.25)


def test_CK_a_torn_journal_line_is_cut_before_anything_is_appended(stopped: Lab) -> None:
    journal = stopped.run_folder / "journal.jsonl"
    journal.write_bytes(b'{"key": [1], "value": 0.5}\n{"key": [2], "va')
    assert stopped.run().code == 0
    assert journal.read_bytes() == b'{"key": [1], "value": 0.5}\n'


@pytest.mark.parametrize("fails", [1, 2])
def test_CK23_an_exchange_that_fails_half_way_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """The old folder has stepped aside and the new one cannot take its place: the old one comes back."""
    from hookline.errors import CheckpointError
    from hookline.storage import folders

    target = tmp_path / "best"
    with folders.write_aside(target, {"step": 1}) as aside:
        (aside / "weights").write_text("old")
    real, calls = Path.rename, [0]

    def rename(self: Path, other: Path) -> Path:
        calls[0] += 1
        if calls[0] == fails:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, other)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(CheckpointError, match="Input/output error"), folders.write_aside(target, {"step": 2}) as aside:
        (aside / "weights").write_text("new")
    assert folders.verify(target)["step"] == 1
    assert (target / "weights").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_CK26_a_damaged_newer_one_does_not_push_out_the_good_ones(stopped: Lab, whole: dict[str, bytes]) -> None:
    for folder in stopped.checkpoints()[1:]:
        os.truncate(folder / "core.json", 1)
    (stopped.folder / "go").unlink()
    (stopped.folder / "at").write_text("2")
    said = stopped.run(None, "phases.sft.save.keep=1")  # goes on from step 1, saves 2, breaks off in 3
    assert said.code == 5, said.err
    assert [p.name for p in stopped.checkpoints()] == ["sft-00000002"]
    (stopped.folder / "go").touch()
    said = stopped.run()
    assert said.code == 0, said.err
    assert "skipped" not in said.err
    same(stopped, whole)


def test_CK28_the_step_decides_not_the_time(stopped: Lab, whole: dict[str, bytes]) -> None:
    for age, folder in enumerate(stopped.checkpoints()):
        for path in (*files(folder), folder):
            os.utime(path, (10**9 - age * 10**6,) * 2)
    flip(stopped.checkpoints()[0] / "core.json", 5)  # would be found if the oldest were taken for the newest
    said = stopped.run()
    assert "skipped" not in said.err
    same(stopped, whole)


def test_CK29_another_thread_count_or_torch_is_one_notice(stopped: Lab) -> None:
    path = stopped.run_folder / "run.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "torch": "1.0", "machine": "pdp11"}))
    said = stopped.run()
    assert said.code == 0, said.err
    notes = [line for line in said.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1, said.err
    assert "not bit-identical" in notes[0]
    assert "torch: 1.0 then" in notes[0]
    assert "machine: pdp11 then" in notes[0]


# -- writes that fail


class Faults:
    """Every write, fsync and rename below a folder is counted; the n-th and all later ones fail."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number, self.left, self.count, self.armed = folder, number, -1, 0, False

    def check(self, path: object) -> None:
        inside = isinstance(path, str | Path) and str(path).startswith(str(self.folder))
        if self.armed and inside:
            self.count += 1
            if self.left == 0:
                raise OSError(self.number, os.strerror(self.number), str(path))
            self.left -= 1


@contextmanager
def faults(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    made = Faults(folder, number)
    handles: dict[int, str] = {}

    def wrap(owner: Any, name: str, path_of: Callable[..., object]) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **more: Any) -> Any:
            made.check(path_of(*args, **more))
            return real(*args, **more)

        monkeypatch.setattr(owner, name, call)

    real_open = os.open

    def opened(path: Any, *args: Any, **more: Any) -> int:
        handle = real_open(path, *args, **more)
        handles[handle] = str(path)
        return handle

    monkeypatch.setattr(os, "open", opened)
    from safetensors import torch as safe

    def opened_as(fd: int) -> object:
        link = Path(f"/proc/self/fd/{fd}")
        return os.readlink(link) if link.exists() else None

    def writing(self: Path, mode: str = "r", *args: Any, **more: Any) -> object:
        return self if set(mode) & set("wax+") else None

    wrap(os, "fsync", lambda fd: handles.get(fd) or opened_as(fd))
    wrap(Path, "rename", lambda self, other: self)
    wrap(Path, "replace", lambda self, other: self)
    wrap(Path, "mkdir", lambda self, *a, **m: self)
    wrap(Path, "open", writing)
    wrap(Path, "write_text", lambda self, *a, **m: self)
    wrap(safe, "save_file", lambda tensors, path, *a, **m: path)
    yield made
    made.armed = False


def test_CK23_and_PR8_a_full_disk_at_every_write_leaves_the_last_save_whole(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.plugin(ARMS, "arms.py")
    made = lab.sft(2)
    made["phases"][0]["wrap"] = "arms"
    made["plugins"] = ["./arms.py"]
    import sys

    with faults(lab.run_folder, errno.ENOSPC, monkeypatch) as disk:
        monkeypatch.setattr(sys, "disk", disk, raising=False)
        reference = None
        n = 0
        refusals = 0
        while True:
            shutil.rmtree(lab.run_folder, ignore_errors=True)
            disk.left, disk.count = n, 0
            said = lab.run(made)
            disk.armed = False
            if said.code == 0:
                assert disk.left >= 0
                reference = lab.weights()
                break
            refusals += 1
            refused(
                said,
                4,
                "disk full while writing",
                "bytes were free",
                "what was saved before is untouched",
                "free some space",
            )
            assert str(lab.run_folder) in said.sentence
            from hookline.storage import folders

            for folder in lab.checkpoints():
                folders.verify(folder)
            phase = lab.run_folder / "phases" / "sft"
            if phase.exists():
                folders.verify(phase)
            else:
                assert lab.checkpoints(), "the save of step 1 is lost"
            if n % 7 == 0:  # with room again, the same command goes on
                disk.left = 10**9
                again = lab.run()
                disk.armed = False
                assert again.code == 0, again.err
                resumed = lab.weights()
                reference = reference or resumed
                assert resumed == reference
            n += 1
            assert n < 200
        assert refusals >= 15
        assert resumed == reference


ARMS = """
import sys
from hookline import Component, hookimpl

class Arms(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        result = yield
        if ctx.step == 1 and hasattr(sys, "disk"):
            sys.disk.armed = True
        return result
"""


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.EROFS, errno.EMFILE])
def test_PR8_other_failures_of_the_disk_are_one_sentence_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import sys

    lab.plugin(ARMS, "arms.py")
    made = lab.sft(2)
    made["phases"][0]["wrap"] = "arms"
    made["plugins"] = ["./arms.py"]
    with faults(lab.run_folder, number, monkeypatch) as disk:
        monkeypatch.setattr(sys, "disk", disk, raising=False)
        for n in (0, 3, 9):
            shutil.rmtree(lab.run_folder, ignore_errors=True)
            disk.left = n
            words = ["disk full"] if number == errno.EDQUOT else ["cannot be written", os.strerror(number)]
            refused(lab.run(made), 4, *words, "what was saved before is untouched")
            disk.armed = False


def test_CK23_a_disk_that_is_really_full(lab: Lab) -> None:
    """A file system of three megabytes, where the system lets us mount one."""
    disk = lab.folder / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        path = lab.write(changed(lab.sft(9), "model.width", 128))
        said = refused(
            lab.hookline("run", path, "--out", "disk/run"), 4, "disk full while writing disk/run", "bytes were free"
        )
        from hookline.storage import folders

        saved = sorted((disk / "run" / "checkpoints").glob("sft-*"))
        assert saved, said.err
        assert folders.verify(saved[-1])["step"] == len(saved)
        subprocess.run(["mount", "-o", "remount,size=90m", str(disk)], check=True)
        assert lab.hookline("run", path, "--out", "disk/run").code == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_CK23_a_small_disk(lab: Lab) -> None:
    """The same with a limit of the system itself: no file may grow beyond 100 KiB."""
    made = changed(lab.sft(2), "model.width", 128)
    lab.write(made)
    prelude = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, 100 << 10))"
    )
    process = lab.process("run", "tiny.yaml", "--out", "run", prelude=prelude)
    out, err = process.communicate(timeout=60)
    refused(Said(process.returncode, out, err), 4, "cannot be written", "File too large")
    assert lab.checkpoints() == []
    assert lab.run().code == 0
