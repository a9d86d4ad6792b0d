"""Where tensors lie: on the CPU between hooks, on the role's device inside `ctx.stats`, `ctx.train` and `ctx.draw`.

The law is watched without a second device: tensors that the core moved are marked as lying *there*, those that hooks see
as lying *here*, and an operation that a GPU would refuse because its tensors lie apart fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

import hookline
from hookline import Batch, ExperimentError, HooklineError, Request, Sampling
from hookline.cli import main
from hookline.loop.api import plan
from hookline.loop.loop import PhaseLoop
from hookline.models.role import Role
from hookline.training import trainer
from hookline.world import devices
from hookline.world.world import World

Lab = Callable[..., PhaseLoop]


ROLES = torch.device("cpu", 0)
"""The roles' device here: the CPU, but not equal to where hooks see tensors."""


class Apart(AssertionError):
    """An operation over tensors of two devices."""


class Watch(TorchFunctionMode):
    """Follows where tensors would lie if roles had a device of their own. What nobody placed may lie anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Any = WeakIdKeyDictionary()
        self.moved = 0

    def put(self, value: Any, place: str) -> None:
        for tensor in tensors_in(value):
            self.places[tensor] = place

    def place(self, value: Any) -> set[str]:
        """Where the tensors in a value lie; one number without dimensions goes anywhere."""
        return {self.places[t] for t in tensors_in(value) if t.dim() and t in self.places}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name == "cpu":
            out = args[0].clone()
            self.put(out, "here")
            return out
        given = [*args, *kwargs.values()]
        out = func(*args, **kwargs)
        if name == "to" and any(isinstance(a, str | torch.device) for a in given):
            self.put(out, "there")
            return out
        if name == "__getitem__":  # a tensor there may be read by an index from here, not the other way round
            wrong = self.place(args[0]) == {"here"} and "there" in self.place(args[1])
            places = self.place(args[0])
        else:
            places = self.place(given)
            wrong = len(places) > 1 and name != "copy_"
        if wrong:
            raise Apart(f"{name} of tensors here and there")
        made = not any(True for _ in tensors_in(given))
        if places:
            written = args[0] if name == "__setitem__" and args[0] not in self.places else None
            self.put([out, written], places.pop())
        elif made and kwargs.get("device") == ROLES:
            self.put(out, "there")
        elif made and not isinstance(kwargs.get("device"), torch.device):
            self.put(out, "here")  # `device=x.device` is the device of x, wherever that is
        return out


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))


@contextmanager
def apart(loop: PhaseLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """The loop's roles as if they lay on a device of their own."""
    watch = Watch()

    def moved(batch: Batch, device: Any) -> Batch:
        watch.moved += 1
        copied = {}
        for field in fields(batch):
            value = getattr(batch, field.name)
            copied[field.name] = clone(value)
            watch.put(copied[field.name], "there")
        return replace(batch, **copied)

    real = trainer.forward

    def computed(role: Role, batch: Batch, want: Any, *more: Any) -> dict[str, Tensor]:
        found = real(role, batch, want, *more)
        watch.put(found, "there")
        return found

    monkeypatch.setattr(Batch, "to", moved)
    monkeypatch.setattr(trainer, "forward", computed)
    monkeypatch.setattr(Role, "device", ROLES)
    for role in loop.phase.roles.values():
        watch.put(role.tensors(), "there")
        watch.put(list(role.parameters().values()), "there")
    with watch:
        yield watch


def clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: clone(getattr(value, field.name)) for field in fields(value)})
    return value


def phases(sampled: dict[str, Any], corpus: Path) -> dict[str, dict[str, Any]]:
    data = {"use": "dataset", "path": str(corpus / "prompts.jsonl"), "rows": 8}
    pairs = {"use": "preferences", "path": str(corpus / "pairs.jsonl"), "rows": 5}
    played = {"rollout": sampled, "reward": "length"}
    duel = {"rollout": {**sampled, "use": "duel"}, "reward": "length"}
    few = {"lr": 1e-3, "micro_tokens": 60, "epochs": 2}
    return {
        "sft": {"rollout": data, "update": {"use": "sft", **few}},
        "grpo": {**played, "advantage": "group-relative", "update": {"use": "grpo", **few}},
        "truncated": {
            **played,
            "rollout": {**sampled, "top_k": 9},
            "update": {"use": "rloo", **few},
            "advantage": None,
        },
        "ppo": {**played, "wrap": ["kl-penalty"], "advantage": "gae", "update": {"use": "ppo", **few}},
        "dpo": {"rollout": pairs, "update": {"use": "dpo", **few}},
        "online-dpo": {**played, "update": {"use": "dpo", **few}},
        "simpo": {"rollout": pairs, "update": {"use": "simpo", **few}},
        "orpo": {"rollout": pairs, "update": {"use": "orpo", **few}},
        "kto": {"rollout": pairs, "update": {"use": "kto", **few}},
        "bradley-terry": {"rollout": pairs, "update": {"use": "bradley-terry", **few}, "read": {"head": "reward"}},
        "best-of-n": {**played, "update": {"use": "best-of-n", **few}},
        "ilql": {"rollout": data, "reward": "length", "update": {"use": "ilql", **few}},
        "q-learning": {"rollout": data, "reward": "length", "update": {"use": "q-learning", **few}},
        "nash-md": {**duel, "wrap": "preference", "update": {"use": "nash-md", "micro_tokens": 60}},
        "xpo": {**duel, "update": {"use": "xpo", "micro_tokens": 60}},
    }


def ends_early(loop: PhaseLoop) -> None:
    """Answers differ in length, so that their rewards differ and there are comparisons."""
    prompts = [[i] for i in range(12)]
    said = loop.ctx.draw(prompts, torch.arange(12), sampling_=Sampling(), max_new_tokens=7).token_ids_BT
    loop.phase._resources.drawing.ends = (int(said.flatten().mode().values),)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("ppo", "dpo", "sft") else pytest.mark.slow) for n in phases({}, Path())]
)
def test_no_algorithm_mixes_devices(
    lab: Lab, sampled: dict[str, Any], corpus: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = lab(**{key: value for key, value in phases(sampled, corpus)[name].items() if value is not None})
    with apart(loop, monkeypatch) as watch:
        ends_early(loop)
        loop.step()
    assert watch.moved >= 2, "statistics, losses or answers were computed where roles lie"


def test_the_watch_sees_what_a_gpu_would_refuse(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = lab(update={"use": "sft", "lr": 1e-3})
    batch = loop.hooks.rollout(loop.ctx)
    with apart(loop, monkeypatch) as watch:
        beside_T = torch.ones(batch.token_ids_BT.shape)
        assert loop.ctx.stats(batch).logprobs_BT.add(beside_T).sum() < 0, "figures that a hook sees lie here"
        with pytest.raises(Apart):
            loop.ctx.train(batch, lambda mb: mb.token_mean(-mb.stats().logprobs_BT * beside_T[: len(mb.batch)]))
        watch.put(batch, "here")
        with pytest.raises(Apart):
            loop.ctx.role_named("policy").states(batch, {"before"})


def test_what_an_engine_gives_lies_here(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = lab(update={"use": "sft", "lr": 1e-3})
    asked: dict[str, Any] = {"role": "policy", "prompt": [1, 2], "sample": 3, "seed": 1, "max_new_tokens": 4, "ends": (0,)}
    with apart(loop, monkeypatch) as watch:
        given = loop.ctx.wait(loop.phase._resources.drawing.engine.draw(Request(**asked, sampling=Sampling(top_k=4))))
        assert all(watch.place(tensor) <= {"here"} for tensor in tensors_in(given))
        assert watch.place(given.token_ids) == watch.place(given.logprobs) == {"here"}


def test_a_batch_that_lies_there_already_is_itself(lab: Lab, sampled: dict[str, Any]) -> None:
    loop = lab(rollout={**sampled, "top_k": 5}, reward="length", update={"use": "sft", "lr": 1e-3})
    batch = loop.hooks.score(loop.ctx, loop.hooks.rollout(loop.ctx)).with_extra(mine_B=torch.zeros(12))
    assert batch.to("cpu") is batch
    elsewhere = batch.to("meta")
    assert {tensor.device.type for tensor in elsewhere.tensors().values()} == {"meta"}
    assert elsewhere.behaviour is not None
    assert elsewhere.behaviour.support is not None
    assert elsewhere.behaviour.support.ids.device.type == "meta"
    assert (type(elsewhere), elsewhere.records, len(elsewhere)) == (type(batch), batch.records, len(batch))
    assert batch.token_ids_BT.device.type == "cpu"


# -- the experiment's `device`


@pytest.mark.parametrize(
    ("name", "there", "sentence"),
    [
        ("cuda", 0, "device: cuda is not available"),
        ("cuda:1", 1, "device: cuda:1 is not available; torch finds cuda:0 → use device: cuda:0"),
        ("cuda:5", 2, "device: cuda:5 is not available; torch finds cuda:0 to cuda:1"),
        ("mps", 0, "device: mps is not available"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence_before_weights_load(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tiny: Any, name: str, there: int, sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(HooklineError, match=sentence) as caught:
        plan({**tiny(), "device": name})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "", 3, None])
def test_a_word_that_is_no_device_is_refused(tiny: Any, name: Any) -> None:
    with pytest.raises(ExperimentError, match="device"):
        plan({**tiny(), "device": name})


def test_auto_is_the_first_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.resolve("auto") == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve("auto", 1) == torch.device("cuda", 1)
    with pytest.raises(ExperimentError, match="torch finds cuda:0 to cuda:1"):  # one rank per GPU
        devices.resolve("auto", 2)


def test_explain_shows_the_device(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**tiny(), "device": "cpu"}))
    assert main(["explain", str(tmp_path / "tiny.yaml")]) == 0
    assert "device cpu" in capsys.readouterr().out.splitlines()[0]


def test_mps_comes_with_a_notice(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert any("mps is untested" in text for text in plan({**tiny(), "device": "mps"}).notes)


def test_a_run_on_mps_prints_the_notice_once_and_one_on_the_cpu_does_not(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "resolve", lambda name, local=0: torch.device("cpu"))
    for name, times in (("mps", 1), ("cpu", 0)):
        hookline.run({**tiny(steps=1), "device": name}, out=tmp_path / name).close()
        said = "note: device: mps is untested; compare a short run with device: cpu before relying on it"
        assert capsys.readouterr().out.splitlines().count(said) == times


def test_a_world_of_one_is_the_identity() -> None:
    world, rows = World(), [[1, 2], [3]]
    assert (world.rank, world.size, world.device) == (0, 1, torch.device("cpu"))
    assert (world.sum(2.5), world.max(-1.0), world.any(True), world.any(False)) == (2.5, -1.0, True, False)
    assert world.shard(rows) is rows
    assert world.main(lambda: rows) is rows
    assert world.gather(rows) == [rows]
    assert world.before(3) == (0, 3)
    assert world.order([7, 3, 5]) == ([2, 0, 1], 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_step_of_grpo_on_a_gpu_is_that_on_the_cpu(lab: Lab, sampled: dict[str, Any], corpus: Path) -> None:
    """One step from the same rows: figures and weights agree to rounding, and nothing that hooks see lies on the GPU."""
    found = []
    phase = phases(sampled, corpus)["grpo"]
    on_cpu = lab(**phase)
    rollout = on_cpu.hooks.rollout(on_cpu.ctx)
    for device in ("cpu", "cuda"):
        loop = lab(device=device, **phase)
        assert loop.ctx.role_named("policy").device.type == device
        drawn = loop.hooks.rollout(loop.ctx)
        assert {tensor.device.type for tensor in drawn.tensors().values()} == {"cpu"}
        batch = loop.hooks.advantage(loop.ctx, loop.hooks.score(loop.ctx, rollout))
        before = loop.ctx.stats(batch).logprobs_BT
        loop.hooks.update(loop.ctx, batch)
        after = loop.ctx.stats(batch).logprobs_BT
        assert before.device.type == after.device.type == "cpu"
        weights = {name: tensor.cpu() for name, tensor in loop.ctx.role_named("policy").tensors().items()}
        found.append((before, after, weights))
    (before, after, weights), (gpu_before, gpu_after, gpu_weights) = found
    torch.testing.assert_close(gpu_before, before, atol=1e-4, rtol=0)
    torch.testing.assert_close(gpu_after, after, atol=2e-3, rtol=0)
    for name, tensor in weights.items():
        torch.testing.assert_close(gpu_weights[name], tensor, atol=3e-3, rtol=0)
