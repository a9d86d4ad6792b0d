"""`hookline bench`: wrong kernels are not timed silently, lost speed is noticed, and what is written can be read."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hookline.cli import main
from hookline.testing import PARTS, timed_steps
from hookline.testing.bench import baseline, child, host, kernels, measure, update
from hookline.testing.bench.cases import EAGER, OURS, REFERENCE, cases
from hookline_plugins.commands import bench_reward, bench_step
from hookline_plugins.report import png

QUICK = cases("cpu", quick=True)
CPU = torch.device("cpu")
LIMITS = {"read": 1e10, "copy": 1e10, "gemm float32": 1e11, "gemm bfloat16": 1e11}


@pytest.fixture
def hasty(monkeypatch):
    """One turn each, and ceilings that take no time."""
    monkeypatch.setattr(measure, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(measure, "MOST_ROUNDS", 1)
    monkeypatch.setattr(kernels, "ceilings", lambda *_: dict(LIMITS))
    monkeypatch.setattr(kernels, "host_costs", list)


@pytest.fixture
def two_cases(hasty, monkeypatch):
    chosen = [case for case in QUICK if case.op in ("gae", "kl_estimate")]
    monkeypatch.setattr(kernels, "cases", lambda *_: chosen)
    return chosen


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [True, False])
def test_no_two_cases_have_one_name(device, quick):
    names = [case.name for case in cases(device, quick)]
    assert len(set(names)) == len(names)
    assert {case.op for case in cases(device, quick)} == {
        "token_stats",
        "linear_token_stats",
        "gae",
        "kl_divergence",
        "kl_estimate",
        "linear_kl_divergence",
    }


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_every_case_is_right_before_it_is_timed(hasty, case):
    rows = {row["by"]: row for row in measure.measure([case], CPU, LIMITS, 0)}
    assert set(rows) >= {EAGER, OURS}
    for by in {OURS, REFERENCE} & set(rows):
        assert not rows[by]["wrong"], rows[by]
    assert rows[EAGER]["ratio"] == 1
    rounds_its_logits = case.op.startswith("linear") and case.dtype == torch.bfloat16
    assert rows[EAGER]["wrong"] == rounds_its_logits


@pytest.mark.parametrize("spoil", [lambda x: x + 1e-3, lambda x: x * torch.nan], ids=["a little", "NaN"])
def test_a_wrong_kernel_ends_with_its_name(two_cases, monkeypatch, capsys, spoil):
    def spoiled(*_):
        return [replace(c, run={**c.run, OURS: lambda *x, c=c: spoil(c.run[OURS](*x))}) for c in two_cases]

    monkeypatch.setattr(kernels, "cases", spoiled)
    assert main(["bench", "kernels", "--quick"]) == 6
    assert "differs from float64 by more than it promises: gae fwd [32, 256] float32" in capsys.readouterr().err


def test_a_wrong_gradient_is_wrong(hasty):
    case = next(c for c in QUICK if c.op == "kl_divergence" and c.leaves)
    half = replace(case, run={**case.run, OURS: lambda p, q: case.run[OURS](p, q.detach() + 0 * q)})
    rows = {row["by"]: row for row in measure.measure([half], CPU, LIMITS, 0)}
    assert rows[OURS]["wrong"]


def test_what_is_written_can_be_read(two_cases, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert main(["bench", "kernels", "--quick", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "kl_estimate" in shown
    assert "x eager" in shown
    stored = baseline.stored_kernels(out / "kernels.json")
    assert stored["machine"]["cpu"]
    assert {(row["op"], row["by"]) for row in stored["rows"]} >= {("gae", OURS), ("gae", EAGER), ("kl_estimate", OURS)}
    drawn = (out / "roofline.png").exists()
    assert drawn or "matplotlib is not installed" in shown


def test_without_matplotlib_there_is_a_sentence(two_cases, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(png.importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "kernels", "--quick", "--out", str(tmp_path)]) == 0
    assert "pip install 'hookline[report]'" in capsys.readouterr().out
    assert not (tmp_path / "roofline.png").exists()


def stored(tmp_path, factor):
    """A measurement in which gae was `factor` as fast as it is."""
    path = tmp_path / "baseline.json"
    assert main(["bench", "kernels", "--quick", "--save", str(path)]) == 0
    found = json.loads(path.read_text())
    for row in found["rows"]:
        for figure in ("ratio", "low", "high"):
            row[figure] *= factor if row["op"] == "gae" else 1e-6
    path.write_text(json.dumps(found))
    return str(path)


def test_lost_speed_is_named_and_fails(two_cases, tmp_path, capsys):
    path = stored(tmp_path, 1e6)
    assert main(["bench", "kernels", "--quick", "--baseline", path]) == 6
    told = capsys.readouterr().err
    assert "slower than stored by more than 5 %: gae fwd [32, 256] float32" in told
    assert "kl_estimate" not in told


def test_no_lost_speed_is_no_failure(two_cases, tmp_path, capsys):
    path = stored(tmp_path, 1e-6)
    assert main(["bench", "kernels", "--quick", "--baseline", path]) == 0
    assert "no kernel of ours is more than 5 % slower" in capsys.readouterr().out


def test_another_machine_is_named(two_cases, tmp_path, capsys):
    path = tmp_path / "b.json"
    assert main(["bench", "kernels", "--quick", "--save", str(path)]) == 0
    found = json.loads(path.read_text())
    found["machine"]["cpu"] = "4 x another"
    for row in found["rows"]:
        row |= {"ratio": 1e-6, "low": 1e-6, "high": 1e-6}
    path.write_text(json.dumps(found))
    assert main(["bench", "kernels", "--quick", "--baseline", str(path)]) == 0
    assert "differs in cpu; this alone may change the ratios" in capsys.readouterr().out


def test_a_difference_counts_beyond_what_the_turns_differ():
    row = {"op": "gae", "what": "fwd", "shape": "[1]", "dtype": "float32", "by": OURS}
    then = {"rows": [{**row, "ratio": 100.0, "low": 80.0, "high": 110.0}]}
    for now, counts in ((79.0, False), (60.0, True)):
        lost = baseline.losses([{**row, "ratio": now, "low": now - 9, "high": now + 9}], then)
        assert bool(lost) == counts
    assert not baseline.losses([{**row, "ratio": 60.0, "low": 50.0, "high": 85.0}], then), "this one's turns differ"


def test_nothing_exceeds_its_ceiling(hasty):
    found = {**LIMITS, "copy 1 MiB": 1.0, "gemm float32 64 x 128 x 4000": 1.0}
    chosen = [case for case in QUICK if case.op in ("gae", "linear_token_stats") and case.dtype == torch.float32]
    rows = list(measure.measure(chosen, CPU, found, 0))
    measure.shares(rows, found)
    assert {row["ceiling"] for row in rows} == {"copy 1 MiB", "gemm float32 64 x 128 x 4000"}
    assert all(0 < row["share"] <= 1 for row in rows)
    for name in {row["ceiling"] for row in rows}:
        assert max(row["share"] for row in rows if row["ceiling"] == name) == 1, "the fastest is the ceiling"
    for row in rows:
        assert row["ms"] <= row["ms_low"] <= row["ms_high"]
        assert row["low"] <= row["ratio"] <= row["high"]


def test_a_product_that_is_computed_twice_is_work_once():
    flops = {case.what: case.flops for case in QUICK if case.op == "linear_token_stats" and case.dtype == torch.float32}
    assert flops["fwd+bwd"] == 3 * flops["fwd"]


def test_host_costs_are_ratios_to_an_empty_op(monkeypatch):
    monkeypatch.setattr(host, "ROUNDS", 3)
    rows = host.measure()
    assert [(row["op"], row["what"]) for row in rows] == [("gae", "fwd"), ("token_stats", "fwd"), ("token_stats", "fwd+bwd")]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["us"] / row["empty_us"])
        assert 0 < row["empty_us"] < row["us"] < row["first_us"]


def test_where_the_fused_path_is_slower_is_said(monkeypatch, capsys):
    slow = {"ms": 9.0, "ms_low": 8.0, "ms_high": 9.9}
    monkeypatch.setattr(update, "_in_child", lambda path, v: row_of(path, v, **(slow if path == "fused" and v == 8192 else {})))
    assert main(["bench", "update"]) == 0
    shown = capsys.readouterr().out
    assert "with a vocabulary of 8192 the fused path takes 4.50 times as long" in shown
    assert "of 32000 the fused path takes" not in shown


def test_five_per_cent_is_the_line():
    row = {"op": "gae", "what": "fwd", "shape": "[1]", "dtype": "float32", "by": OURS}
    then = {"rows": [{**row, "ratio": 100.0}]}
    assert baseline.losses([{**row, "ratio": 95.1}], then) == []
    assert baseline.losses([{**row, "ratio": 94.9}], then) == [("gae fwd [1] float32", 100.0, 94.9)]
    assert baseline.losses([{**row, "by": EAGER, "ratio": 1.0}], then) == []


NO_RATIO = '{"rows": [{"op": "gae", "what": "fwd", "shape": "[1]", "dtype": "float32", "by": "ours"}]}'


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"rows": [{"op": "gae"}]}', NO_RATIO, '{"rows": [], "machine": 3}']
)
def test_a_baseline_that_is_none(tmp_path, capsys, text):
    path = tmp_path / "b.json"
    if text is not None:
        path.write_text(text)
    assert main(["bench", "kernels", "--quick", "--baseline", str(path)]) == 3
    assert "is not a stored measurement" in capsys.readouterr().err


def test_a_baseline_of_other_shapes(tmp_path, capsys, monkeypatch):
    path = tmp_path / "b.json"
    path.write_text('{"rows": []}')
    monkeypatch.setattr(kernels, "ceilings", None)
    assert main(["bench", "kernels", "--quick", "--baseline", str(path)]) == 3
    assert "has none of these shapes → compare measurements made with the same options" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["kernels", "update"])
def test_a_place_that_cannot_be_written_is_found_first(tmp_path, capsys, monkeypatch, command):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kernels, "ceilings", None)  # nothing may be measured
    monkeypatch.setattr(update, "measure", None)
    assert main(["bench", command, "--out", str(tmp_path / "file")]) == 3
    assert "cannot be written" in capsys.readouterr().err


def test_on_a_terminal_each_case_has_a_table(two_cases, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["bench", "kernels", "--quick"]) == 0
    shown = capsys.readouterr().out
    for case in two_cases:
        assert case.name in shown
    plain = [re.sub(r"\x1b\[[0-9;?]*\w", "", line) for line in shown.splitlines()]
    rows = [line for line in plain if line.split()[:1] == [EAGER]]
    assert len(rows) == len(two_cases)
    assert all(" 1.00 " in row and len(row) <= 80 for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_no_gpu_is_one_line(capsys):
    assert main(["bench", "kernels", "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert "torch finds no GPU here" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", [["--device", "cuda"], ["--compile"], ["--save", "x"], ["--baseline", "x"]])
def test_an_option_of_the_other_measurement_is_refused(capsys, monkeypatch, option):
    monkeypatch.setattr(update, "measure", None)
    assert main(["bench", "update", *option]) == 2
    assert f"{option[0]} is an option of `bench kernels" in capsys.readouterr().err


def test_an_unknown_device(capsys):
    assert main(["bench", "kernels", "--device", "tpu"]) == 2
    assert "--device is 'tpu' → choose cpu or cuda" in capsys.readouterr().err


def test_both_paths_take_the_same_step(monkeypatch, tmp_path):
    for name, value in {"ROWS": 2, "RESPONSE": 10, "WIDTH": 32, "LAYERS": 1, "STEPS": 1}.items():
        monkeypatch.setattr(update, name, value)
    rows = []
    for path in update.PATHS:
        update.main(path, "300", str(tmp_path / path))
        rows.append(json.loads((tmp_path / path).read_text()))
    for figure in ("loss", "gradient_norm"):
        assert rows[0][figure] == pytest.approx(rows[1][figure], rel=1e-5)
    assert all(row["ms"] > 0 and row["peak_mb"] > 10 for row in rows)


def row_of(path, vocabulary, **changes):
    figures = {"vocabulary": vocabulary, "path": path, "peak_mb": 9.0, "beyond_mb": 3.0, "logits_mb": 1.0}
    return figures | {"ms": 2.0, "ms_low": 2.0, "ms_high": 2.1} | {"loss": 0.5, "gradient_norm": 1.0} | changes


def test_paths_that_are_not_the_same_update_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(
        update, "_in_child", lambda path, v: row_of(path, v, **({"loss": 0.51} if path == "fused" else {}))
    )
    assert main(["bench", "update", "--quick"]) == 6
    assert "the fused path's loss is 0.51, that of materialised logits 0.5" in capsys.readouterr().err


def test_the_table_of_updates(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(update, "_in_child", row_of)
    assert main(["bench", "update", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[:2] for line in shown.splitlines() if "fused" in line] == [
        [str(v), "fused"] for v in update.VOCABULARIES
    ]
    assert len(json.loads((tmp_path / "update.json").read_text())["rows"]) == 6


def test_a_step_is_measured_and_its_parts_are_the_whole(tmp_path, capsys):
    assert main(["bench", "step", "--quick", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "step.json").read_text())
    [row] = found["rows"]
    assert row["by"] == "ours"
    assert len(row["seconds"]) == len(row["reward"]) == found["workload"]["steps"]
    assert set(row["parts"]) == set(PARTS)
    for part in ("prefill", "decode", "draw", "reference", "train", "optimiser", "rest"):
        assert row["parts"][part] > 0
    assert (tmp_path / "step.png").stat().st_size > 5000
    assert "parts, s: prefill" in capsys.readouterr().out


def test_the_parts_of_each_step_are_the_whole_step_by_another_clock(tmp_path):
    import hookline

    work = bench_step.made(bench_step.Workload(**bench_step.QUICK), tmp_path / "model")
    described = bench_step.experiment(work)
    again = {"name": "again", "every": 1, "prompts": [{"prompt": work.texts[0]}], "reward": [bench_step.letters]}
    described["phases"][0]["evaluate"] = [again]
    with timed_steps() as steps:
        run = hookline.run(described, out=tmp_path / "run")
    timings = [row["timings"] for row in run.rows() if "seconds/rollout" in row["timings"]]  # not of an evaluation before the first
    assert len(steps) == len(timings) == work.steps
    for step, others in zip(steps, timings):
        assert sum(step[part] for part in PARTS) == pytest.approx(step["step"], rel=0.05)
        hooks = sum(others[f"seconds/{hook}"] for hook in ("rollout", "reward", "advantage", "update"))
        assert step["decode"] < others["seconds/rollout"] <= hooks <= step["step"], "the evaluation is between the steps"


def test_what_is_timed_is_as_it_was_afterwards():
    from hookline.models.role import Role

    before = Role.step
    with timed_steps() as steps:
        assert Role.step is not before
    assert Role.step is before
    assert steps == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["step", "--compile"], "--compile is an option of `bench kernels`"),
        (["update", "--device", "cuda"], "--device is an option of `bench kernels, step and reward`"),
        (["kernels", "--steps", "9"], "--steps is an option of `bench step and reward`"),
        (["step", "--quick", "--peer", "/bin/false"], "the step of false failed: exit code 1"),
        (["step", "--quick", "--peer", "/no/such"], "/no/such cannot be started: No such file or directory"),
        (["kernels", "--threads", "3"], "--threads is an option of `bench step and reward`"),
    ],
)
def test_an_option_of_another_measurement_is_refused(given, said, capsys):
    assert main(["bench", *given]) == 2
    assert said in capsys.readouterr().err


def test_quick_takes_the_steps_that_are_asked_for(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(bench_step, "measure", lambda work, peer, tell: seen.append(work.steps) or {})
    for given in ([], ["--steps", "6"], ["--steps", "8"]):
        assert main(["bench", "step", "--quick", *given]) == 0
    assert main(["bench", "step"]) == 0
    assert seen == [4, 6, 8, 10]


def test_a_child_s_peak_is_its_own():
    block = bytearray(300 << 20)
    code = "import sys; from hookline.testing.bench.child import peak_bytes, write; write({'peak': peak_bytes()}, sys.argv[1])"
    found = child.in_child([sys.executable, "-c", code], "a child", "")
    assert found["peak"] > 10 << 20
    assert child.peak_bytes() > len(block)
    assert child.peak_bytes() - found["peak"] > 200 << 20, "not what the parent had"


def test_a_child_that_dies_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(update.sys, "executable", "/bin/false")
    assert main(["bench", "update", "--quick"]) == 2
    assert "materialised logits and a vocabulary of 2048 tokens failed: exit code 1" in capsys.readouterr().err


@pytest.mark.slow
def test_fused_needs_less_memory_than_the_logits_alone():
    rows = {(row["vocabulary"], row["path"]): row for row in update.measure(quick=True)}
    vocabulary = update.QUICK_VOCABULARIES[-1]
    saved = rows[vocabulary, "materialised"]["peak_mb"] - rows[vocabulary, "fused"]["peak_mb"]
    assert saved > rows[vocabulary, "fused"]["logits_mb"]


@pytest.mark.slow
def test_a_step_s_memory_grows_with_tokens_and_not_with_tokens_times_vocabulary(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from bench_memory import memory

    few, many = memory(long=(256, 1024), groups=(8,), vocabularies=(32_768,))
    assert many["logits_mb"] - few["logits_mb"] == 768
    assert many["peak_mb"] - few["peak_mb"] < 768 / 4


def fake_steps(by: str, peer: str | None, work: bench_step.Workload, folder: Path) -> dict[str, Any]:
    """Rewards rise by 1 a step at the rate 1e-3, half as fast at 1e-4 and not at all at the others; ours takes 2 s a step and TRL 8."""
    rise = {1e-3: 1.0, 1e-4: 0.5}.get(work.lr, 0.0)
    seconds = {"ours": 2.0, "trl": 8.0}[by]
    return {"by": by, "version": by, "seconds": [seconds] * work.steps, "reward": [40 + rise * at for at in range(work.steps)]}


def test_the_time_to_a_reward_is_that_of_the_rate_that_is_best_for_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_reward, "steps_of", fake_steps)
    work = bench_step.Workload(**bench_step.QUICK | {"steps": 21})
    told: list[dict[str, Any]] = []
    found = bench_reward.measure(work, "python", 2, None, told.append)
    assert found["goal"] == 42 + 0.75 * 16, "means of five steps go from 42 to 58"
    assert [(row["by"], row["seed"], row["lr"], row["to_goal"]) for row in found["rows"]] == [
        ("trl", 2, 1e-3, 8.0 * 17), ("ours", 2, 1e-3, 2.0 * 17), ("trl", 3, 1e-3, 8.0 * 17), ("ours", 3, 1e-3, 2.0 * 17),
    ]  # fmt: skip
    assert found["ratios"] == [0.25, 0.25]
    assert [row["lr"] for row in told[:8]] == list(bench_reward.RATES)
    assert told[0]["to_goal"] is None, "TRL's default"


def test_a_reward_that_nobody_reaches_has_no_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_reward, "steps_of", fake_steps)
    assert main(["bench", "reward", "--quick", "--goal", "1000", "--seeds", "1", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("  not  ") == len(bench_reward.RATES) + 1
    assert "of TRL's" not in said
    stored = json.loads((tmp_path / "reward.json").read_text())
    assert stored["ratios"] == []
    assert stored["rows"][0]["to_goal"] is None


@pytest.mark.slow
def test_a_reward_is_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    assert main(["bench", "reward", "--quick", "--seeds", "1", "--goal", "0", "--out", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "reward.json").read_text())["rows"]
    assert len(row["seconds"]) == len(row["reward"]) == 6
    assert 0 < row["to_goal"] <= sum(row["seconds"])
