"""What draws: the engine `local` gives what the sampler always gave, and another engine stands in its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import old_draw
import pytest
import torch
from torch import Tensor

from hookline import Completion, Completions, Engine, HooklineError, NextToken, PluginError, Request, Sampling, rng
from hookline.inference.local import Local
from hookline.loop.loop import PhaseLoop

Lab = Callable[..., PhaseLoop]
SFT = {"use": "sft", "lr": 1e-3}
LENGTHS = (1, 5, 3, 2, 7, 4, 1, 6, 2, 3)


def peaked(loop: PhaseLoop) -> list[list[int]]:
    """Prompts of several lengths, for a model that is far from uniform and often says what ends an answer."""
    tokenizer = loop.session.tokenizer
    weight, _ = loop.ctx.role_named("policy").head
    weight.data.mul_(8)
    prompts = [[(7 * i + 3 * j) % 290 for j in range(n)] for i, n in enumerate(LENGTHS)]
    said = loop.ctx.draw(prompts, torch.arange(10), sampling_=Sampling(), max_new_tokens=12).token_ids_BT
    tokenizer.ends = loop.phase._resources.drawing.ends = (int(said.flatten().mode().values),)
    return prompts


def same(ours: Completions, theirs: Completions) -> None:
    """Equal tokens, and log-probs equal but for rounding."""
    assert ours.finish_reason == theirs.finish_reason
    mine, other = ours.behaviour, theirs.behaviour
    pairs = [(ours.token_ids_BT, theirs.token_ids_BT), (ours.length_B, theirs.length_B)]
    pairs += [(mine.logprobs_BT, other.logprobs_BT), (mine.version_BT, other.version_BT)]
    assert (mine.support is None) == (other.support is None)
    if mine.support is not None and other.support is not None:
        pairs += [(mine.support.ids, other.support.ids), (mine.support.offsets, other.support.offsets)]
    for a, b in pairs:
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # ids are equal


def doubled(said: Mapping[str, Any]) -> Tensor:
    return torch.stack([one.logits_BV for one in said.values()]).sum(0) * 0.7


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(top_k=5, top_p=0.9)},
        {"greedy": True},
        {"beside": ("other",), "combine": doubled, "sampling": Sampling(top_p=0.95)},
        {"rows": 1},
    ],
    ids=["plain", "cold", "truncated", "some greedy", "combined", "one row"],
)
def test_answers_are_what_they_were_before_engines(lab: Lab, options: dict[str, Any]) -> None:
    loop = lab(update=SFT)
    ctx = loop.ctx
    prompts = peaked(loop)[: options.get("rows", 10)]
    sample_B = torch.arange(len(prompts)) * 3 + 5
    policy = ctx.role_named("policy")
    policy.version = 4
    loop.phase.roles._roles["other"] = policy.copy("other")
    sampling, combine = options.get("sampling", Sampling()), options.get("combine")
    greedy_B = torch.arange(len(prompts)) % 3 == 0 if options.get("greedy") else None
    beside = options.get("beside", ())
    ours = ctx.draw(
        prompts, sample_B, sampling_=sampling, max_new_tokens=12, greedy_B=greedy_B, beside=beside, combine=combine
    )
    theirs = old_draw.draw(
        {name: ctx.role_named(name) for name in ("policy", *beside)},
        prompts,
        sample_B,
        sampling=sampling,
        max_new_tokens=12,
        eos=ctx.tokenizer.eos,
        seed=rng.key(loop.phase.scope.seed, ctx.phase, "draw"),
        combine=combine,
        greedy_B=greedy_B,
    )
    same(ours, theirs)
    if len(prompts) > 1:
        assert {"stop", "length"} <= set(ours.finish_reason), "some end early, and leave the batch"


def test_all_that_waits_in_one_turn_is_one_batch_and_what_differs_is_not(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = lab(update=SFT)
    engine = loop.phase._resources.drawing.engine
    assert isinstance(engine, Local)
    batches: list[list[int]] = []
    real = Local._draw

    def watched(self: Local, requests: Any) -> Any:
        batches.append([request.sample for request in requests])
        return real(self, requests)

    monkeypatch.setattr(Local, "_draw", watched)

    def request(sample: int, temperature: float) -> Request:
        sampling = Sampling(temperature=temperature)
        return Request(role="policy", prompt=[1, 2], sample=sample, seed=3, sampling=sampling, max_new_tokens=2, ends=(0,))

    async def both() -> list[Completion]:
        asked = [request(0, 1.0), request(1, 0.5), request(2, 1.0), request(3, 0.5)]
        first = await asyncio.gather(*map(engine.draw, asked))
        return [*first, await engine.draw(request(4, 1.0))]

    found = loop.ctx.wait(both())
    assert batches == [[0, 2], [1, 3], [4]]
    assert len(found) == 5


def test_an_engine_s_failure_is_raised_where_answers_were_asked_for(lab: Lab) -> None:
    loop = lab(update=SFT)

    def broken(said: Mapping[str, NextToken]) -> Tensor:
        raise ZeroDivisionError("in a plugin")

    with pytest.raises(ZeroDivisionError, match="in a plugin"):
        loop.ctx.draw([[1], [2]], torch.arange(2), sampling_=Sampling(), max_new_tokens=2, combine=broken)
    assert len(loop.ctx.draw([[1]], torch.arange(1), sampling_=Sampling(), max_new_tokens=2).length_B) == 1


def test_draw_inside_an_async_hook_is_refused_in_a_sentence(lab: Lab) -> None:
    loop = lab(update=SFT)

    async def hook() -> None:
        loop.ctx.draw([[1]], torch.arange(1), sampling_=Sampling(), max_new_tokens=2)

    with pytest.raises(PluginError, match="inside a coroutine"):
        asyncio.run(hook())


def test_no_prompts_are_no_answers(lab: Lab) -> None:
    drawn = lab(update=SFT).ctx.draw([], torch.arange(0), sampling_=Sampling(top_k=3), max_new_tokens=4)
    assert drawn.token_ids_BT.shape == (0, 0)
    assert drawn.behaviour.support is not None


def test_scores_are_the_log_probs_of_the_tokens(lab: Lab) -> None:
    loop = lab(update=SFT)
    ids = [5, 9, 2, 7]
    found = loop.ctx.wait(loop.phase._resources.drawing.engine.score("policy", ids))
    with torch.no_grad():
        logprobs = torch.log_softmax(loop.ctx.role_named("policy").net(torch.tensor([ids])).logits[0].double(), -1)
    expected = torch.stack([logprobs[i, ids[i + 1]] for i in range(3)])
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", ["gpt2", "llama", "tabular"])
def test_decoding_goes_on_from_any_rows(lab: Lab, model: str) -> None:
    """`State.rows` repeats for a group, drops and reorders, and leaves the state it came from as it was."""
    options = {"build": model, "context": 32} | ({} if model == "tabular" else {"layers": 1, "width": 32})
    loop = lab(options, update=SFT)
    role = loop.ctx.role_named("policy")
    for parameter in role.parameters().values():
        parameter.data.normal_(generator=torch.Generator().manual_seed(1))
    prompts = [[1, 2, 3], [4], [5, 6]]
    with torch.no_grad():
        state = role.prefill(prompts, 0)
        before = state.logits_BV.clone()
        index, ids = torch.tensor([2, 0, 0]), torch.tensor([7, 8, 9])
        moved = state.rows(index)
        assert torch.equal(moved.logits_BV, before[index])
        after = role.step(moved, ids)
        assert torch.equal(state.logits_BV, before)
        role.step(state, torch.tensor([1, 1, 1]))
        for row, (prompt, token) in enumerate(zip(([5, 6], [1, 2, 3], [1, 2, 3]), ids.tolist())):
            whole = role.prefill([[*prompt, token]], 0).logits_BV[0]
            torch.testing.assert_close(after[row], whole, atol=1e-4, rtol=1e-4)


# -- another engine, in a loose file: it answers from a file of completions

FILED = '''
import asyncio
import json
import json
from pathlib import Path

import torch

import hookline
from hookline import Completion, DataError, Engine


class Filed(Engine):
    """Answers from a file of completions: prompt -> answer. It knows no log-probs and combines nothing."""

    gives = frozenset()

    class Config(hookline.Config):
        answers: str = ""
        """A JSON file."""

    def setup(self, ctx):
        self.tokenizer, self.version, self.told = ctx.tokenizer, {}, []
        written = json.loads(Path(self.config.answers).read_text())
        self.answers = {tuple(self.tokenizer.prompt(asked)): said for asked, said in written.items()}

    def sync(self, role, version):
        self.told.append((role, version))
        self.version[role] = version

    async def draw(self, request):
        await asyncio.sleep(0.001 * (request.sample % 3))
        said = self.answers.get(tuple(request.prompt))
        if said is None:
            raise DataError("no answer is on file", "add it")
        ids = self.tokenizer.answer(said)
        cut = ids[: request.max_new_tokens]
        return Completion(
            token_ids=torch.tensor(cut),
            logprobs=None,
            versions=torch.full((len(cut),), self.version[request.role]),
            finish_reason="stop" if cut == ids else "length",
        )
'''


@pytest.fixture
def filed(lab: Lab, sampled: dict[str, Any], corpus: Path, tmp_path: Path) -> Callable[..., PhaseLoop]:
    """A phase whose engine answers each prompt with that prompt twice."""
    from hookline.registry import offers

    (tmp_path / "filed.py").write_text(FILED)
    words = [line.split('"')[3] for line in (corpus / "prompts.jsonl").read_text().splitlines()]

    (tmp_path / "answers.json").write_text(json.dumps({word: f"{word} {word}" for word in words}))
    offer = offers.loose(str(tmp_path / "filed.py"))[0]
    assert offer.kind == "engine"
    cls: type[Engine] = offer.load()

    def make(**options: Any) -> PhaseLoop:
        loop = lab(rollout={**sampled, **options}, reward="length", update=SFT)
        made = cls(cls.Config(answers=str(tmp_path / "answers.json")))  # type: ignore[call-arg]
        made.instance = "filed"
        made.setup(loop.ctx)
        loop.phase._resources.drawing.engine = made
        return loop

    return make


def test_a_rollout_generates_with_an_engine_that_reads_a_file(filed: Callable[..., PhaseLoop]) -> None:
    loop = filed(max_new_tokens=30)
    rollout = loop.hooks.rollout(loop.ctx)
    assert all(rollout.response_text(i).split() == [rollout.prompt_text(i)] * 2 for i in range(len(rollout)))
    assert set(rollout.finish_reason) == {"stop"}
    assert rollout.behaviour is not None
    recomputed = loop.ctx.stats(rollout).logprobs_BT
    assert torch.equal(rollout.behaviour.logprobs_BT, recomputed), "log-probs it does not know are the role's own"
    assert float(recomputed[rollout.mask_BT].max()) < 0


def test_an_engine_is_told_of_new_weights_once_before_it_draws(filed: Callable[..., PhaseLoop]) -> None:
    loop = filed(max_new_tokens=30)
    loop.step()
    loop.hooks.rollout(loop.ctx)
    loop.hooks.rollout(loop.ctx)
    engine: Any = loop.phase._resources.drawing.engine
    assert engine.told == [("policy", 0), ("policy", 1)]


def test_what_an_engine_cannot_do_is_refused_by_name(filed: Callable[..., PhaseLoop]) -> None:
    loop = filed()
    with pytest.raises(
        PluginError, match=r"figures of several roles together \('combine'\), but engine 'filed' is not one"
    ):
        loop.ctx.draw(
            [[1]], torch.arange(1), sampling_=Sampling(), max_new_tokens=2, combine=lambda said: torch.zeros(1, 300)
        )
    with pytest.raises(PluginError, match=r"'generate' needs .*\('kept-ids'\)"):
        filed(top_k=5).hooks.rollout(filed(top_k=5).ctx)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"logprobs": torch.zeros(3)}, "3 logprobs for 2 tokens"),
        ({"versions": torch.zeros(1, dtype=torch.long)}, "1 versions for 2 tokens"),
        ({"token_ids": torch.zeros(0, dtype=torch.long)}, "an answer without a token"),
    ],
)
def test_what_does_not_fit_together_names_the_engine(lab: Lab, change: dict[str, Any], sentence: str) -> None:
    class Odd(Engine):
        async def draw(self, request: Request) -> Completion:
            right = {"token_ids": torch.ones(2).long(), "logprobs": torch.zeros(2), "versions": torch.zeros(2).long()}
            return Completion(**(right | change), finish_reason="stop")

    loop = lab(update=SFT)
    loop.phase._resources.drawing.engine = Odd(Odd.Config())
    loop.phase._resources.drawing.engine.instance, loop.phase._resources.drawing.slot = "odd", None
    with pytest.raises(PluginError, match=f"engine 'odd' returned {sentence}"):
        loop.ctx.draw([[1]], torch.arange(1), sampling_=Sampling(), max_new_tokens=3)


def test_the_built_in_engine_and_family_are_offered_by_the_same_table_as_every_plugin() -> None:
    from hookline.models.causal import Causal
    from hookline.registry import offers

    assert offers.find("engine", "local").load() is Local
    assert offers.find("model", "causal").load() is Causal


def test_a_run_names_its_engine_and_draws_with_it(tiny: Any, shelf: Path, tmp_path: Path) -> None:
    import hookline

    (tmp_path / "filed.py").write_text(FILED)
    rows = [json.loads(line) for line in (shelf / "prompts.jsonl").read_text().splitlines()]
    (tmp_path / "answers.json").write_text(json.dumps({row["prompt"]: row["completion"] for row in rows}))
    described = tiny(engine={"use": "filed", "answers": str(tmp_path / "answers.json")}, advantage="reward-to-go", reward="tokens")
    described["phases"][0]["rollout"]["max_new_tokens"] = 9
    described["phases"][0]["evaluate"] = [{"reward": "keyword-coverage", "rows": 4}]
    described["plugins"].append(str(tmp_path / "filed.py"))
    run = hookline.run(described, out=tmp_path / "run")
    said = {sample["prompt"]: sample["response"] for entry in run.evaluations() for sample in entry["samples"]}
    assert said
    assert all(said[row["prompt"]] == row["completion"] for row in rows if row["prompt"] in said)
    run.close()
    described["phases"][0]["rollout"] |= {"top_p": 0.9}
    with pytest.raises(HooklineError, match="needs an engine that gives 'kept-ids', but 'filed' does not"):
        hookline.run(described, out=tmp_path / "cut")
    described["phases"][0]["rollout"] = {**described["phases"][0]["rollout"], "use": "duel", "top_p": 1.0}
    with pytest.raises(HooklineError, match="'duel' needs an engine that gives 'combine', but 'filed' does not"):
        hookline.run(described, out=tmp_path / "combined")
