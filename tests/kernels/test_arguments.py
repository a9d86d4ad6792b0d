"""What the public functions refuse, and the sentence they refuse it with. Rows KN of the fault catalogue."""

from __future__ import annotations

import math

import pytest
import torch

from hookline.kernels import (
    backend,
    build_info,
    gae,
    kl_divergence,
    kl_estimate,
    linear_kl_divergence,
    linear_token_stats,
    native,
    token_stats,
)

LOGITS, IDS = torch.randn(2, 3, 10), torch.zeros(2, 3, dtype=torch.long)
HIDDEN, WEIGHT = torch.randn(2, 3, 4), torch.randn(10, 4)
REWARDS, VALUES = torch.randn(2, 8), torch.randn(2, 8)


def ids_with(value, place=(1, 2)):
    ids = IDS.clone()
    ids[place] = value
    return ids


REFUSALS = {
    "id too large": (lambda: token_stats(LOGITS, ids_with(10)), r"token_ids\[1, 2\] is 10, but .* 10 tokens"),
    "id negative": (lambda: token_stats(LOGITS, ids_with(-1)), r"token_ids\[1, 2\] is -1"),
    "id too large for a head": (lambda: linear_token_stats(HIDDEN, WEIGHT, ids_with(99)), r"token_ids\[1, 2\] is 99"),
    "ids of another shape": (
        lambda: token_stats(LOGITS, IDS[:, :2]),
        r"token_ids is \[2, 2\] but logits is \[2, 3, 10\]",
    ),
    "float ids": (lambda: token_stats(LOGITS, IDS.float()), "token_ids is float32; give integers"),
    "bool ids": (lambda: token_stats(LOGITS, IDS.bool()), "token_ids is bool; give integers"),
    "integer logits": (lambda: token_stats(LOGITS.long(), IDS), "logits is int64; give float32"),
    "complex logits": (lambda: token_stats(LOGITS.cfloat(), IDS), "logits is complex64"),
    "fp8 logits": (lambda: token_stats(LOGITS.to(torch.float8_e4m3fn), IDS), "logits is float8_e4m3fn"),
    "no dimension": (lambda: token_stats(torch.tensor(1.0), torch.tensor(0)), r"logits is \[\]; give \[\.\.\., V\]"),
    "no vocabulary": (lambda: token_stats(torch.zeros(2, 0), IDS[0, :2]), "at least one token"),
    "temperature 0": (
        lambda: token_stats(LOGITS, IDS, temperature=0),
        "temperature is 0.0; give a finite number above 0",
    ),
    "temperature NaN": (lambda: token_stats(LOGITS, IDS, temperature=math.nan), "temperature is nan"),
    "temperature tensor": (lambda: token_stats(LOGITS, IDS, temperature=torch.tensor(1.0)), "temperature is a Tensor"),
    "softcap 0": (lambda: token_stats(LOGITS, IDS, softcap=0), "softcap is 0.0; .* or None for no cap"),
    "unknown statistic": (
        lambda: token_stats(LOGITS, IDS, want=("perplexity",)),
        "want names 'perplexity'; choose from",
    ),
    "unknown grad": (lambda: token_stats(LOGITS, IDS, grad="fast"), "grad is 'fast'; choose from new, pooled, inplace"),
    "hidden of another width": (
        lambda: linear_token_stats(HIDDEN[..., :3], WEIGHT, IDS),
        r"hidden is \[2, 3, 3\] but weight",
    ),
    "weight of one dimension": (lambda: linear_token_stats(HIDDEN, WEIGHT[0], IDS), r"weight is \[4\]; give \[V, H\]"),
    "bias of another size": (
        lambda: linear_token_stats(HIDDEN, WEIGHT, IDS, bias=WEIGHT[0]),
        r"bias is \[4\] .* \[10\]",
    ),
    "values too long": (lambda: gae(REWARDS, torch.randn(2, 9)), r"values is \[2, 9\] .* pass it as bootstrap="),
    "values of another shape": (lambda: gae(REWARDS, VALUES[:1]), "give one value per reward"),
    "integer rewards": (lambda: gae(REWARDS.long(), VALUES), "rewards is int64"),
    "float mask": (lambda: gae(REWARDS, VALUES, mask=VALUES), "mask is float32; give a bool mask"),
    "mask of another shape": (lambda: gae(REWARDS, VALUES, mask=VALUES[:1] > 0), r"mask is \[1, 8\] but rewards"),
    "gamma above 1": (lambda: gae(REWARDS, VALUES, gamma=1.1), r"gamma is 1.1; give a number in \[0, 1\]"),
    "lam NaN": (lambda: gae(REWARDS, VALUES, lam=math.nan), "lam is nan"),
    "lam a tensor": (lambda: gae(REWARDS, VALUES, lam=torch.tensor(0.9)), "lam is a Tensor; give a plain number"),
    "bootstrap per token": (lambda: gae(REWARDS, VALUES, bootstrap=VALUES), r"bootstrap is \[2, 8\]; .* \[2\]"),
    "rewards of no dimension": (lambda: gae(REWARDS[0, 0], VALUES[0, 0]), r"rewards is \[\]"),
    "packed rewards of two": (lambda: gae(REWARDS, VALUES, offsets=torch.tensor([0, 16])), r"give \[N\] with offsets"),
    "offsets that fall": (
        lambda: gae(REWARDS[0], VALUES[0], offsets=torch.tensor([0, 6, 4, 8])),
        "row 1 starts at 6 and ends at 4",
    ),
    "offsets beyond the end": (
        lambda: gae(REWARDS[0], VALUES[0], offsets=torch.tensor([0, 9])),
        "start at 0 and end at 8",
    ),
    "float offsets": (lambda: gae(REWARDS[0], VALUES[0], offsets=torch.tensor([0.0, 8.0])), "offsets is float32"),
    "unknown estimator": (lambda: kl_estimate(REWARDS, VALUES, estimator="k4"), "estimator 'k4' does not exist"),
    "no estimator": (lambda: kl_estimate(REWARDS, VALUES, estimator=()), "estimator is empty"),
    "log-probs of two shapes": (
        lambda: kl_estimate(REWARDS, VALUES[0]),
        r"ref_logprobs is \[8\] but logprobs is \[2, 8\]",
    ),
    "two vocabularies": (lambda: kl_divergence(LOGITS, LOGITS[..., 1:]), r"ref_logits is \[2, 3, 9\] but logits"),
    "heads of two vocabularies": (
        lambda: linear_kl_divergence(HIDDEN, WEIGHT, HIDDEN, WEIGHT[1:]),
        "one row per token of the vocabulary",
    ),
    "heads of two batches": (lambda: linear_kl_divergence(HIDDEN, WEIGHT, HIDDEN[:1], WEIGHT), "for the same tokens"),
    "support of too few tokens": (
        lambda: token_stats(LOGITS, IDS, support=(torch.arange(3), torch.tensor([0, 3]))),
        r"support offsets is \[2\] for 6 tokens; give \[7\]",
    ),
    "support that descends": (
        lambda: token_stats(LOGITS[0, :1], IDS[0, :1], support=(torch.tensor([4, 3]), torch.tensor([0, 2]))),
        "support ids of token 0 must ascend .* sort each token's ids",
    ),
    "support that repeats": (
        lambda: token_stats(LOGITS[0, :1], IDS[0, :1], support=(torch.tensor([3, 3]), torch.tensor([0, 2]))),
        "must ascend without repeats",
    ),
    "support out of range": (
        lambda: token_stats(LOGITS[0, :2], IDS[0, :2], support=(torch.tensor([3, 10]), torch.tensor([0, 1, 2]))),
        "support ids of token 1 .* hold 10",
    ),
    "support of nothing": (
        lambda: token_stats(LOGITS[0, :2], IDS[0, :2], support=(torch.tensor([0]), torch.tensor([0, 1, 1]))),
        "token 1 has no kept id in its support",
    ),
    "support that goes beyond its ids": (
        lambda: token_stats(LOGITS[0, :1], IDS[0, :1], support=(torch.tensor([0]), torch.tensor([0, 5]))),
        "end at 1, the number of kept ids",
    ),
    "support offsets that leave and return": (
        lambda: token_stats(LOGITS[0, :2], IDS[0, :2], support=(torch.tensor([0]), torch.tensor([0, 9, 1]))),
        "not decrease",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(implementation, name):
    call, sentence = REFUSALS[name]
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8, torch.int64])
def test_integer_ids_of_any_width(implementation, dtype):
    ids = torch.randint(10, (2, 3))
    assert torch.equal(token_stats(LOGITS, ids.to(dtype)).logprobs, token_stats(LOGITS, ids).logprobs)


def test_float64_is_computed_in_float64(implementation):
    assert token_stats(LOGITS.double(), IDS).logprobs.dtype == torch.float64
    assert gae(REWARDS.double(), VALUES)[0].dtype == torch.float64
    assert kl_estimate(REWARDS, VALUES.double()).dtype == torch.float64
    assert linear_token_stats(HIDDEN, WEIGHT.double(), IDS).logprobs.dtype == torch.float64


def test_inference_mode_and_no_grad(implementation):
    expected = token_stats(LOGITS, IDS).logprobs
    with torch.inference_mode():
        assert torch.equal(token_stats(LOGITS, IDS).logprobs, expected)
    with torch.no_grad():
        assert not token_stats(LOGITS.clone().requires_grad_(), IDS).logprobs.requires_grad


def test_deterministic_mode(implementation):
    torch.use_deterministic_algorithms(True)
    try:
        leaf = LOGITS.clone().requires_grad_()
        token_stats(leaf, IDS).logprobs.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert leaf.grad.isfinite().all()


def test_backend_names():
    with (
        pytest.raises(ValueError, match="backend 'gpu' does not exist; choose from auto, cpu, cuda, reference"),
        backend("gpu"),
    ):
        pass
    if native.cuda_module is None:
        with pytest.raises(RuntimeError, match="tensors on a GPU use the reference"), backend("cuda"):
            pass
    with backend("reference"):
        assert not native.use_native(torch.device("cpu"))
    assert native.use_native(torch.device("cpu")) == (native.module is not None)


def test_build_info_says_what_runs_and_why():
    info = build_info()
    assert info["kernels"].startswith("native (cpu ") if native.module else info["why"]
    assert info["threads"] == torch.get_num_threads()


WHERE = {
    "token_stats": (token_stats, {"logits": LOGITS, "token_ids": IDS}),
    "linear_token_stats": (linear_token_stats, {"hidden": HIDDEN, "weight": WEIGHT, "token_ids": IDS, "bias": torch.zeros(10)}),
    "gae": (gae, {"rewards": REWARDS, "values": VALUES, "mask": REWARDS > 0, "bootstrap": torch.zeros(2)}),
    "packed gae": (gae, {"rewards": REWARDS[0], "values": VALUES[0], "offsets": torch.tensor([0, 8])}),
    "kl_estimate": (kl_estimate, {"logprobs": REWARDS, "ref_logprobs": VALUES}),
    "kl_divergence": (kl_divergence, {"logits": LOGITS, "ref_logits": LOGITS}),
    "linear_kl_divergence": (
        linear_kl_divergence,
        {"hidden": HIDDEN, "weight": WEIGHT, "ref_hidden": HIDDEN, "ref_weight": WEIGHT, "ref_bias": torch.zeros(10)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("op", WHERE)
def test_no_argument_lies_elsewhere_or_is_sparse(op):
    """A kernel of the meta device would answer with memory that nobody has written."""
    call, arguments = WHERE[op]
    call(**arguments)
    for name, tensor in arguments.items():
        with pytest.raises(ValueError, match=r"is on (meta|cpu) but .* is on (cpu|meta); give both on one device"):
            call(**arguments | {name: tensor.to("meta")})
        with pytest.raises(ValueError, match=f"{name} is sparse_coo; give a dense tensor"):
            call(**arguments | {name: tensor.to_sparse()})
    with pytest.raises(ValueError, match="support offsets is on meta but logits is on cpu"):
        token_stats(LOGITS, IDS, support=(IDS.flatten(), torch.arange(7, device="meta")))


def test_all_on_meta_is_a_shape():
    assert token_stats(LOGITS.to("meta"), IDS.to("meta")).logprobs.device.type == "meta"
