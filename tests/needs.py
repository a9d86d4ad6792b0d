"""What a test needs from the machine: without it the test is skipped, and CI installs it and does not skip.

    @needs_program("chromium", "apt-get install chromium chromium-driver")
    def test_the_page_on_a_telephone(): …

Under HOOKLINE_CI=1, which `.ci/run` sets, a test that is skipped for a reason outside ALLOWED fails.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

ALLOWED = {
    r"no NVIDIA GPU|a GPU is here|one GPU only": "a machine has a GPU or has none, and some tests need either",
    r"needs nvcc": "the CUDA compiler is several gigabytes; `make cuda-check` runs wherever it is",
    r"needs \d+ GB of free": "CI machines differ in memory",
    r"no file system can be mounted here|root may write anywhere": "depends on the rights of the user who runs the tests",
    r"does not apply: ": "one of several parameters that this test has nothing to say about",
}
"""Reasons (regular expressions) for which a test may be skipped on CI, and why."""


def needs_program(program: str, install: str) -> pytest.MarkDecorator:
    """Skip a test, or with `pytestmark` a file, where a program is missing, and say how to install it."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}: {install}")


def needs_package(package: str, install: str) -> pytest.MarkDecorator:
    """The same for a Python package."""
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}: {install}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    report: Any = yield
    if os.environ.get("HOOKLINE_CI") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        # `conformance` skips the laws that do not concern a component
        of_a_law = "law" in getattr(getattr(item, "callspec", None), "params", {})
        if not of_a_law and not any(re.match(allowed, reason) for allowed in ALLOWED):
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} was skipped ({reason}), and under HOOKLINE_CI=1 that is a failure: "
                "install what it needs in .ci/run, or add the reason to ALLOWED in tests/needs.py"
            )
    return report
