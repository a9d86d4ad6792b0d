"""A role's first drawn batch, and some later ones, are computed again: an engine, or a model's decoding, that says something
else ends the run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hookline import Completion, Engine, NumbersError, Request, Sampling, kernels
from hookline.inference import drawing
from hookline.inference.local import Local
from hookline.loop.loop import PhaseLoop
from hookline.loop.scope import Evaluation
from hookline.models.role import Role

Lab = Callable[..., PhaseLoop]
SFT = {"use": "sft", "lr": 1e-3}
GPT2 = {"build": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": 64}
LLAMA = {**GPT2, "build": "llama"}


@pytest.fixture
def sharp(lab: Lab) -> Lab:
    """A phase whose model is far from uniform."""

    def make(model: dict[str, Any] | None = None, **phase: Any) -> PhaseLoop:
        loop = lab(model or GPT2, update=SFT, **phase)
        role = loop.ctx.role_named("policy")
        generator = torch.Generator().manual_seed(3)
        for parameter in role.parameters().values():
            if parameter.dim() > 1:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        return loop

    return make


def draw(loop: PhaseLoop, rows: int = 6, sampling: Sampling | None = None, **options: Any) -> Tensor:
    prompts = [[5 + row, 9, 30 + row][: 1 + row % 3] for row in range(rows)]
    options = {"sampling_": sampling or Sampling(), "max_new_tokens": 9, **options}
    ids_BT: Tensor = loop.ctx.draw(prompts, torch.arange(rows), **options).token_ids_BT
    return ids_BT


def engine(loop: PhaseLoop, said: Callable[[Tensor], Tensor]) -> None:
    """`local` as the phase's engine, but for what it says of its log-probs."""

    class Odd(Local):
        async def draw(self, request: Request) -> Completion:
            found = await super().draw(request)
            assert found.logprobs is not None
            return replace(found, logprobs=said(found.logprobs))

    odd = Odd(Odd.Config())
    odd.instance = "odd"
    odd.setup(loop.ctx)
    loop.phase._resources.drawing.engine, loop.phase._resources.drawing.slot = odd, None


@pytest.fixture
def recomputed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(role, rows) of every time that rows are computed again."""
    seen: list[tuple[str, int]] = []
    real = drawing.own_logprobs

    def watched(role: Role, prompts: Sequence[Any], *more: Any) -> Tensor:
        seen.append((role.name, len(prompts)))
        return real(role, prompts, *more)

    monkeypatch.setattr(drawing, "own_logprobs", watched)
    return seen


# -- what agrees


@pytest.mark.parametrize("model", [GPT2, LLAMA, {"build": "tabular", "context": 32}], ids=["gpt2", "llama", "tabular"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling": Sampling(temperature=0.4)},
        {"sampling": Sampling(temperature=1.7, top_k=5, top_p=0.9)},
        {"sampling": Sampling(temperature=0.7, min_p=0.2)},
        {"greedy_B": torch.tensor([True, False] * 3)},
    ],
    ids=["plain", "cold", "truncated", "min-p", "some greedy"],
)
def test_what_is_drawn_is_what_is_computed_under_the_request_s_own_sampling(
    sharp: Lab, recomputed: list[tuple[str, int]], model: dict[str, Any], options: dict[str, Any]
) -> None:
    draw(sharp(model), **options)
    assert recomputed == [("policy", drawing.COMPARED_ROWS)]


def test_each_role_is_compared_once_in_a_phase_evaluations_included(
    sharp: Lab, recomputed: list[tuple[str, int]]
) -> None:
    loop = sharp()
    ctx = loop.ctx
    loop.phase.roles._roles["other"] = ctx.role_named("policy").copy("other")
    loop.ctx = ctx.scoped(Evaluation(ctx.training, "eval"))
    draw(loop, rows=2)
    loop.ctx = ctx
    for _ in range(2):
        draw(loop)
        draw(loop, model="other", sampling=Sampling(top_k=4))
    assert recomputed == [("policy", 2), ("other", 4)]


def test_the_comparison_changes_no_token_and_no_random_number(sharp: Lab) -> None:
    compared, plain = sharp(), sharp()
    plain.phase._resources.drawing.drawn["policy"] = 1
    plain.phase._resources.drawing.padded.add("policy")
    before = torch.get_rng_state()
    assert torch.equal(draw(compared), draw(plain))
    assert torch.equal(torch.get_rng_state(), before)
    assert compared.phase.metrics.collect()[0] == plain.phase.metrics.collect()[0]
    assert not compared.ctx.role_named("policy").net.training


def test_nothing_is_compared_where_the_role_cannot_say_it_alone(sharp: Lab, recomputed: list[tuple[str, int]]) -> None:
    loop = sharp()
    draw(loop, combine=lambda said: said["policy"].logits_BV * 2)
    assert not recomputed, "drawn from a combination"
    engine(loop, lambda logprobs: logprobs)
    loop.ctx.role_named("policy").version = 3
    odd: Any = loop.phase._resources.drawing.engine
    real = odd.draw

    async def late(request: Request) -> Completion:
        found = await real(request)
        return replace(found, versions=found.versions - 1)

    odd.draw = late
    draw(loop)
    assert not recomputed, "drawn by weights that are gone"
    odd.draw = real
    draw(loop)
    assert recomputed == [("policy", 4)]


# -- what does not


@pytest.mark.parametrize(
    ("said", "sampling"),
    [
        (lambda logprobs: logprobs * 0.5, Sampling(temperature=0.5)),
        (lambda logprobs: logprobs.roll(1), Sampling()),
        (lambda logprobs: logprobs + 0.001, Sampling()),
    ],
    ids=["another temperature", "shifted by a token", "a little off"],
)
def test_an_engine_whose_log_probs_are_not_the_role_s_ends_the_run(
    sharp: Lab, said: Callable[[Tensor], Tensor], sampling: Sampling
) -> None:
    loop = sharp()
    engine(loop, said)
    for _ in range(2):  # a second try finds the same
        with pytest.raises(
            NumbersError, match=r"engine 'odd' drew from role 'policy' .* mean exp\|Δ\| is [\d.einfa+]+ ov"
        ):
            draw(loop, sampling=sampling)


@pytest.mark.parametrize("model", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_decoding_that_differs_from_the_forward_pass_ends_the_run_whatever_the_architecture(
    sharp: Lab, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Role.step
    monkeypatch.setattr(Role, "step", lambda self, state, ids_B: real(self, state, torch.zeros_like(ids_B)))
    with pytest.raises(NumbersError, match=r"engine 'local' .* steps of family 'causal' must agree with its states"):
        draw(sharp(model))


@pytest.mark.parametrize("fewer_bits", [{"dtype": "bfloat16"}, {"autocast": "bfloat16"}], ids=["weights", "autocast"])
def test_fewer_bits_may_round_more_and_no_more_than_that(sharp: Lab, fewer_bits: dict[str, str]) -> None:
    draw(sharp({**GPT2, **fewer_bits}))
    for off, is_far in ((0.02, False), (0.5, True)):
        loop = sharp({**GPT2, **fewer_bits})
        engine(loop, lambda logprobs, off=off: logprobs + off)
        if is_far:
            with pytest.raises(NumbersError, match=r"above 1\.05"):
                draw(loop)
        else:
            draw(loop)


def test_a_run_with_such_an_engine_ends_before_it_trains(tiny: Any, tmp_path: Any) -> None:
    import hookline

    (tmp_path / "hot.py").write_text(
        "from dataclasses import replace\n"
        "from hookline.inference.local import Local\n"
        "class Hot(Local):\n"
        "    async def draw(self, request):\n"
        "        found = await super().draw(request)\n"
        "        return replace(found, logprobs=found.logprobs / 2)\n"
    )
    described = tiny(engine="hot")
    described["plugins"].append(str(tmp_path / "hot.py"))
    with pytest.raises(NumbersError, match=r"engine 'hot' .*drew from role 'policy'") as caught:
        hookline.run(described, out=tmp_path / "run")
    assert caught.value.exit_code == 6
    assert caught.value.hint


def test_an_engine_without_log_probs_has_nothing_to_compare(sharp: Lab) -> None:
    loop = sharp()

    class Silent(Engine):
        async def draw(self, request: Request) -> Completion:
            two = torch.ones(2, dtype=torch.long)
            return Completion(token_ids=two, finish_reason="length", logprobs=None, versions=two * 0)

    loop.phase._resources.drawing.engine, loop.phase._resources.drawing.slot = Silent(Silent.Config()), None
    draw(loop)
    assert not loop.phase._resources.drawing.drawn


# -- later, while the run goes on


class Drifting(Local):
    """`local`, which from its fourth batch on says something else than the role would."""

    fault: Callable[[Completion, Request, Any], Tensor]
    batches = 0

    def _draw(self, requests: Sequence[Request]) -> list[Completion]:
        found = super()._draw(requests)
        self.batches += 1
        if self.batches <= 3:
            return found
        return [replace(one, logprobs=self.fault(one, request, self)) for one, request in zip(found, requests)]


def logits(engine: Any, one: Completion, request: Request, change: Callable[[Any], Any] = lambda net: net) -> Tensor:
    ids = torch.tensor([[*request.prompt, *one.token_ids.tolist()]])
    with torch.no_grad():
        found: Tensor = change(engine.role_named("policy").net)(ids).logits[0, len(request.prompt) - 1 : -1].float()
    return found


def chosen(logits_TV: Tensor, one: Completion) -> Tensor:
    return torch.log_softmax(logits_TV, -1).gather(-1, one.token_ids[:, None])[:, 0]


def stale(one: Completion, request: Request, engine: Any) -> Tensor:
    def older(net: Any) -> Any:
        net = copy.deepcopy(net)
        for parameter in net.parameters():
            parameter.data.mul_(0.97)
        return net

    return chosen(logits(engine, one, request, older), one)


def wrong_temperature(one: Completion, request: Request, engine: Any) -> Tensor:
    return chosen(logits(engine, one, request) / 0.8, one)


def top_p_on_one_side(one: Completion, request: Request, engine: Any) -> Tensor:
    drawn = kernels.draw(logits(engine, one, request), torch.zeros(len(one.token_ids), dtype=torch.float64), top_p=0.9)
    assert drawn.support is not None
    ids, offsets = drawn.support
    masked = torch.full_like(logits(engine, one, request), -torch.inf)
    for t in range(len(one.token_ids)):
        kept = ids[offsets[t] : offsets[t + 1]]
        masked[t, kept] = logits(engine, one, request)[t, kept]
    return chosen(masked, one).clamp(min=-20)


def rounded_head(one: Completion, request: Request, engine: Any) -> Tensor:
    return chosen(logits(engine, one, request).bfloat16().float(), one)


def draw_often(loop: PhaseLoop, times: int, **options: Any) -> None:
    for _ in range(times):
        draw(loop, **options)


@pytest.mark.parametrize("fault", [stale, wrong_temperature, top_p_on_one_side, rounded_head])
def test_an_engine_that_drifts_is_caught_within_so_many_batches_and_its_rows_are_kept(
    sharp: Lab, tmp_path: Path, fault: Any
) -> None:
    loop = sharp()
    odd = Drifting(Drifting.Config())
    odd.instance, odd.fault = "odd", fault
    odd.setup(loop.ctx)
    found = loop.phase._resources.drawing
    found.engine, found.slot, found.folder = odd, None, tmp_path
    with pytest.raises(NumbersError, match="the rows are in") as caught:
        draw_often(loop, 2 * drawing.COMPARED_EVERY)
    assert odd.batches <= drawing.COMPARED_EVERY + 1
    kept = json.loads((tmp_path / "drift-policy.json").read_text())
    assert str(tmp_path / "drift-policy.json") in caught.value.message
    row = kept["rows"][0]
    ids = torch.tensor([[*row["prompt"], *row["token_ids"]]])
    with torch.no_grad():
        said = torch.log_softmax(loop.ctx.role_named("policy").net(ids).logits[0, len(row["prompt"]) - 1 : -1].float(), -1)
    own = said.gather(-1, torch.tensor(row["token_ids"])[:, None])[:, 0]
    torch.testing.assert_close(own, torch.tensor(row["role"]), atol=1e-4, rtol=1e-4)
    assert (own - torch.tensor(row["engine"])).abs().max() > 1e-3


def test_one_batch_in_so_many_is_compared_again_with_other_rows(sharp: Lab, recomputed: list[tuple[str, int]]) -> None:
    loop = sharp()
    draw_often(loop, 2 * drawing.COMPARED_EVERY + 1, max_new_tokens=2)
    assert recomputed == [("policy", drawing.COMPARED_ROWS)] * 3


def test_rows_of_all_lengths_have_their_turn_and_always_the_shortest_beside_the_longest() -> None:
    rows = list(range(11))
    seen: set[int] = set()
    for turn in range(6):
        some = drawing._some(rows, turn)
        assert len(set(some)) == drawing.COMPARED_ROWS
        assert sum(row < 5 for row in some) == drawing.COMPARED_ROWS // 2, "half of them from the shorter half"
        seen |= set(some)
    assert sorted(drawing._some(rows, 0)) == [0, 1, 9, 10]
    assert seen == set(rows)
    assert drawing._some([4, 7], 5) == [4, 7]


def test_the_rows_of_a_gap_without_a_number_are_json_and_a_full_disk_hides_no_gap(
    sharp: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = sharp()
    real = drawing.own_logprobs
    monkeypatch.setattr(drawing, "own_logprobs", lambda *given: real(*given) * torch.nan)
    found = loop.phase._resources.drawing
    found.folder, found.rank = tmp_path, 1
    with pytest.raises(NumbersError, match=r"is nan .*drift-policy-rank1\.json"):
        draw(loop)
    text = (tmp_path / "drift-policy-rank1.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["rows"][0]["role"][0] is None
    found.folder = tmp_path / "gone"
    with pytest.raises(NumbersError, match=r"the rows could not be written to .*: No such file or directory"):
        draw(loop)


def test_where_no_row_can_be_computed_again_the_next_batch_is(sharp: Lab, recomputed: list[tuple[str, int]]) -> None:
    loop = sharp()
    loop.ctx.role_named("policy").version = 3
    draw_often(loop, drawing.COMPARED_EVERY, max_new_tokens=2)
    assert len(recomputed) == 1
    found: Any = loop.phase._resources.drawing.engine
    real = found.draw

    async def late(request: Request) -> Completion:
        one = await real(request)
        return replace(one, versions=one.versions - 1)

    found.draw = late
    draw(loop, max_new_tokens=2)
    found.draw = real
    draw(loop, max_new_tokens=2)
    assert len(recomputed) == 2
