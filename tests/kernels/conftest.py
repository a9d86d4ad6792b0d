from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import hookline.kernels.kept
from hookline.kernels import backend, native

IMPLEMENTATIONS = ["reference", *(native.module.instruction_sets() if native.module else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "implementation" in metafunc.fixturenames:
        names = IMPLEMENTATIONS
        if "linear" not in metafunc.module.__name__:  # avx512_bf16 differs from avx512 in its product only
            names = [name for name in names if name != "avx512_bf16"]
        metafunc.parametrize("implementation", names, indirect=True)


@pytest.fixture(autouse=True)
def always_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are computed in tiles, although those of small tests could be kept."""
    monkeypatch.setattr(hookline.kernels.kept, "MOST", 0)


@pytest.fixture
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with the reference and with each instruction set this machine has."""
    torch.manual_seed(0)
    if request.param == "reference":
        with backend("reference"):
            yield request.param
        return
    before = native.module.build_info()["instruction_set"]
    native.module.use(request.param)
    yield request.param
    native.module.use(before)


@pytest.fixture
def compiled() -> None:
    """Skip where only the reference is here."""
    if native.module is None:
        pytest.skip(native.why_reference)
