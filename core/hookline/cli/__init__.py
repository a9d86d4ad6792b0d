"""The command line: a few verbs, one sentence for each error, and an exit code per class of errors."""

from __future__ import annotations

import contextlib
import os
import sys

from hookline.world.exits import leave

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; `hookline --help` lists the codes."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if {"WORLD_SIZE", "SLURM_NTASKS"} & os.environ.keys():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # torch prints stacks where ranks do not meet
    _prepare_output()
    code = 1
    try:
        code = _run(arguments)
        return code
    finally:
        _unwritable()
        if arguments is None:
            leave(code)


def _run(arguments: list[str] | None) -> int:
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
    except BrokenPipeError:
        return 128 + 13  # as a program ends whose reader, such as `head`, has left
    except Exception as err:
        full = _unwritable(probe=b"\n") if isinstance(err, OSError) else ""
        if full:
            print(f"standard output cannot be written: {full}", file=sys.stderr)
            return 2
        usage = _usage(err)
        if usage is None:
            from hookline.registry.offers import unreadable

            broken = unreadable() if _in_metadata(err) else None
            if broken is None:
                raise
            return told(broken)
        print(usage, file=sys.stderr)
        return 2
    if code == 130:
        from hookline.world.signals import interrupted_by

        code = 128 + interrupted_by[0]
        given = sys.argv[1:] if arguments is None else arguments
        more = "; run the same command with this run's --out to continue from its last checkpoint, if it has one"
        if os.environ.get("RANK", "0") == "0":  # one of several processes tells
            print(f"interrupted{more if given[:1] == ['run'] else ''}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _usage(err: Exception) -> str | None:
    """typer's message about wrong arguments, in one line; None for any other error."""
    show = getattr(err, "format_message", None)
    verbs = getattr(getattr(err, "ctx", None), "command_path", "").split()[1:]
    named = str(getattr(err, "option_name", None) or "").lstrip("-")
    hint = f"an override has no dashes: {named}=VALUE" if "." in named else " ".join(["hookline", *verbs, "--help"])
    return f"UsageError: {show()} → {hint}" if show else None


def _in_metadata(err: BaseException) -> bool:
    """Whether an error arose while the metadata of installed distributions was read."""
    trace, files = err.__traceback__, []
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return any("importlib" in file and "metadata" in file for file in files)


def _prepare_output() -> None:
    """Let no character and no closed stream end a command: signs that the terminal does not have become `?`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell, with >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the rest of the process
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        with contextlib.suppress(OSError, ValueError):
            reconfigure(errors="replace")


def _unwritable(probe: bytes = b"") -> str:
    """Why standard output cannot be written; empty if it can. What it still holds is then dropped, so that Python's own
    flush at the end does not fail."""
    try:
        sys.stdout.flush()
        if probe:
            os.write(sys.stdout.fileno(), probe)
    except (OSError, ValueError) as err:
        why = str(getattr(err, "strerror", None) or err)
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):
            return why
        return why
    return ""
