"""The command line: few verbs, one sentence for what is wrong, an exit code per class."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hookline.errors import HooklineError

__all__ = ["main", "told"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code says what kind of thing happened (see `hookline --help`)."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from hookline.cli.app import app
    from hookline.errors import HooklineError

    try:
        code = app(args=arguments, standalone_mode=False)
    except HooklineError as err:
        return told(err)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as err:
        return int(err.code or 0)
    except Exception as err:
        usage = _usage(err)
        if usage is None:
            raise
        print(usage, file=sys.stderr)
        return 2
    if code == 130:
        print("interrupted; the same command with --out of this run goes on from its last checkpoint", file=sys.stderr)
    return code if isinstance(code, int) else 0


def told(err: HooklineError) -> int:
    """Print what a user can fix, and return its exit code."""
    print(f"{type(err).__name__}: {err}", file=sys.stderr)
    _frames(err)
    return err.exit_code


def _frames(err: BaseException) -> None:
    """A plugin's own frames stand below the sentence; ours would only be in the way."""
    import importlib
    import traceback

    from hookline.errors import PluginError

    cause = err.__cause__
    if cause is None or not isinstance(err, PluginError):
        return
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # beside it lie hookline_foo's
    ours = (home, os.path.dirname(str(importlib.__file__)), "<frozen")
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if not f.filename.startswith(ours)]
    if frames:
        print("".join(traceback.format_list(frames[-4:])), file=sys.stderr, end="")


def _usage(err: Exception) -> str | None:
    """typer's complaints about arguments, in one line."""
    show = getattr(err, "format_message", None)
    return f"UsageError: {show()} → hookline --help" if show else None
