"""The command line. Each command has a file in ``fxcache.commands``."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from fxcache.commands import (
    calibrate,
    compare,
    env,
    export,
    gate,
    inspect,
    report,
    run,
    serve,
    sign,
    strip,
    tune,
)
from fxcache.commands import compile as compile_
from fxcache.commands.options import Result
from fxcache.errors import FxcacheError
from fxcache.versions import version_of

STOPPED = 130  # the exit status that shells report after Ctrl-C
COMMANDS: dict[str, tuple[Any, str]] = {
    "inspect": (inspect, "list the possible cuts of a model and the work that they save"),
    "run": (run, "generate images with a pipeline and fxcache"),
    "compare": (compare, "compare policies with no caching and with fewer steps"),
    "export": (export, "write a pipeline's denoisers as artifacts, which run without its code"),
    "compile": (compile_, "compile an artifact to native code for this machine"),
    "serve": (serve, "serve pictures over HTTP, with an artifact; needs fxcache[serve]"),
    "sign": (sign, "sign an artifact with an Ed25519 key"),
    "gate": (gate, "hold counts and times of an optimised pipeline to expected values"),
    "calibrate": (calibrate, "fit a policy to a pipeline; writes a plan"),
    "tune": (tune, "find the best plan for a speed or a quality"),
    "strip": (strip, "plot which cache points each step refreshes and reuses"),
    "report": (report, "show a report saved by `run --report FILE`"),
    "env": (env, "print versions and the device, for bug reports"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: that of the command, 1 after an error, or 130 after Ctrl-C.
    """
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], Result] = arguments.command
    try:
        result = command(arguments)
    except FxcacheError as error:
        print(f"fxcache: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fxcache: stopped", file=sys.stderr)
        return STOPPED
    except Exception as error:
        if arguments.traceback:
            raise
        print(f"fxcache: {unexpected(error)}", file=sys.stderr)
        return 1
    write(json.dumps(result.data, indent=2) if arguments.json else result.text)
    return result.status


def unexpected(error: Exception) -> str:
    """Describe an error of a library in the form of fxcache's own errors."""
    first = str(error).strip().partition("\n")[0]
    *_, last = traceback.extract_tb(error.__traceback__)
    return (
        f"{type(error).__name__}: {first or 'no message'}\n"
        f"  where: {last.filename}:{last.lineno}, in {last.name}\n"
        "  remedy: check the arguments; the same command with --traceback shows the whole error"
    )


def write(text: str) -> None:
    """Print ``text``. A closed pipe, as in ``fxcache report FILE | head``, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fxcache", description="Cache a denoiser's inner layers.")
    top.add_argument(
        "--version", action="version", version=version_of("fxcache") or "not installed"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        command.formatter_class = argparse.ArgumentDefaultsHelpFormatter
        module.add_options(command)
        command.add_argument("--json", action="store_true", help="machine-readable output")
        trace = "show the traceback of an error of a library"
        command.add_argument("--traceback", action="store_true", help=trace)
        command.set_defaults(command=module.run)
    return top


if __name__ == "__main__":
    sys.exit(main())
