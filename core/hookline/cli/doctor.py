"""Check the installation: versions, kernels, plugins, and how to fix what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

__all__ = ["examine", "show"]

NEEDED = (
    "torch",
    "transformers",
    "pluggy",
    "pydantic",
    "PyYAML",
    "typer",
    "rich",
    "tokenizers",
    "safetensors",
    "peft",
    "numpy",
)
LEAST = {"torch": (2, 10), "transformers": (5, 3), "pydantic": (2, 9)}


def examine() -> list[dict[str, str]]:
    """Findings: {"what", "state": "ok" | "note" | "broken", "found", "hint"}."""
    found: list[dict[str, str]] = []

    def say(what: str, state: str, text: str, hint: str = "") -> None:
        found.append({"what": what, "state": state, "found": text, "hint": hint})

    python = platform.python_version()
    say(
        "python",
        "ok" if sys.version_info >= (3, 11) else "broken",
        python,
        "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer",
    )
    for name in NEEDED:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            say(name, "broken", "not installed", f"pip install {name}")
            continue
        least = LEAST.get(name)
        numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
        old = bool(least and numbers < least)
        say(name, "broken" if old else "ok", version, f"pip install --upgrade {name}" if old else "")
    for name, why in (
        ("wandb", "tracker wandb"),
        ("tensorboard", "tracker tensorboard"),
        ("matplotlib", "the roofline of bench kernels"),
    ):
        there = importlib.util.find_spec(name) is not None
        say(
            name,
            "ok" if there else "note",
            metadata.version(name) if there else f"not installed ({why})",
            "" if there else f"pip install {name}",
        )
    for check in (_kernels, _machine, _plugins, _wandb_key):
        check(say)
    return found


def _kernels(say: Callable[..., None]) -> None:
    try:
        from hookline import kernels

        info: dict[str, Any] = kernels.build_info()
    except Exception as err:
        say("kernels", "broken", f"{type(err).__name__}: {err}", "pip install --force-reinstall --no-deps hookline")
        return
    active = str(info["kernels"])
    native = active.startswith("native")
    why = str(info["why"])
    say(
        "kernels",
        "ok" if native else "note",
        active + (f": {why}" if why and not native else ""),
        "" if native else "install a C++ compiler, then: pip install --force-reinstall --no-deps hookline",
    )
    _cuda_kernels(say, info)


def _cuda_kernels(say: Callable[..., None], info: dict[str, Any]) -> None:
    """Always a note: these kernels are compiled for every commit, but none of our machines has a GPU to run them."""
    import torch

    from hookline.kernels import cuda

    known = "compiled, never run on this project's machines"
    if not info["cuda"]:
        say("CUDA kernels", "note", f"{known}; {info['cuda_why']}: on a GPU the torch reference is used")
    elif not torch.cuda.is_available():
        say("CUDA kernels", "note", f"{known}; built in, but torch sees no GPU here")
    else:
        found = cuda.examine(torch.device("cuda"))
        wrong = [f"{op} {why}, so the reference is used" for op, why in found.items() if why]
        agree = f"compared with the reference on this GPU just now: {len(found) - len(wrong)} of {len(found)} ops agree"
        say("CUDA kernels", "note", "; ".join([known, agree, *wrong]))


def _machine(say: Callable[..., None]) -> None:
    import torch

    devices = f"{torch.cuda.device_count()} CUDA device(s)" if torch.cuda.is_available() else "no CUDA device"
    say(
        "machine",
        "ok",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, torch uses {torch.get_num_threads()} threads, {devices}",
    )
    free = shutil.disk_usage(os.getcwd()).free
    low = free < 1 << 30
    say(
        "disk",
        "note" if low else "ok",
        f"{free / (1 << 30):.1f} GiB free here",
        "free some space before a long run" if low else "",
    )


def _plugins(say: Callable[..., None]) -> None:
    from hookline.registry import offers

    third = [o for o in offers.offers() if not o.built_in]
    built = len(offers.offers()) - len(third)
    say(
        "built-in plugins",
        "ok" if built else "broken",
        f"{built} components",
        "" if built else "pip install --force-reinstall hookline",
    )
    for offer in third:
        hint = f"hookline plugins show {offer.name}" if offer.problem else ""
        say(
            f"{offer.kind} {offer.name}",
            "note" if offer.problem else "ok",
            f"{offer.distribution} {offer.version}{': ' + offer.problem if offer.problem else ''}",
            hint,
        )


def _wandb_key(say: Callable[..., None]) -> None:
    here = bool(os.environ.get("WANDB_API_KEY"))
    say(
        "W&B key",
        "ok",
        "in the environment: runs are sent"
        if here
        else "not in the environment: runs are written offline, and `wandb sync` sends them",
    )


def show(found: Sequence[dict[str, str]]) -> str:
    width = max(len(item["what"]) for item in found)
    signs = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}
    return "\n".join(
        f"{signs[i['state']]}  {i['what'].ljust(width)}  {i['found']}{'  → ' + i['hint'] if i['hint'] else ''}"
        for i in found
    )
