"""The command line: a few verbs, one sentence for each error, and an exit code per class of errors."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; `hookline --help` lists the codes."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from hookline.cli.app import app
    from hookline.errors import HooklineError, told

    try:
        code = app(args=arguments, prog_name="hookline", standalone_mode=False)
    except HooklineError as err:
        return told(err)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as err:
        if isinstance(err.code, int | None):
            return err.code or 0
        print(err.code, file=sys.stderr)
        return 1
    except Exception as err:
        usage = _usage(err)
        if usage is None:
            raise
        print(usage, file=sys.stderr)
        return 2
    if code == 130:
        given = sys.argv[1:] if arguments is None else arguments
        more = "; run the same command with this run's --out to continue from its last checkpoint"
        print(f"interrupted{more if given[:1] == ['run'] else ''}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _usage(err: Exception) -> str | None:
    """typer's message about wrong arguments, in one line; None for any other error."""
    show = getattr(err, "format_message", None)
    verbs = getattr(getattr(err, "ctx", None), "command_path", "").split()[1:]
    return f"UsageError: {show()} → {' '.join(['hookline', *verbs, '--help'])}" if show else None
