"""The command ``dtwpt``: a thin layer over the library."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
import warnings
from types import FrameType
from typing import Any, NoReturn

try:
    import click
except ImportError:
    raise SystemExit('dtwpt: the command needs click: pip install "dtwpt[cli]"') from None

import dtwpt
from dtwpt.cli.bench import bench
from dtwpt.cli.extract import extract
from dtwpt.cli.filters import filters
from dtwpt.cli.info import info
from dtwpt.cli.invariance import invariance
from dtwpt.cli.terminal import FAILED, STOP_SIGNALS, Stopped, note, open_streams
from dtwpt.cli.watched import say_over

__all__ = ["cli", "main"]


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(dtwpt.__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Dual-tree complex wavelet packets: image features that are stable under shifts.

    "dtwpt COMMAND --help" tells more about a command, with examples.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (bench, extract, filters, info, invariance):
    cli.add_command(_command)


class _Stop:
    """Handler of the signals that ask to stop."""

    # During shutdown, a second signal (an impatient Ctrl-C) is ignored.
    _PATIENCE = 5.0

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= self._PATIENCE:
            self._last = now
            raise Stopped(number)


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command and exit; every failure that is not a bug is one line on stderr.

    Parameters
    ----------
    args : list of str, optional
        Default: those of the process.
    """
    open_streams()
    _on_stop_signals(_Stop())
    # Left by a signal that interrupted Zarr.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    status = _run(args)
    say_over()
    if args is None and "ray" in sys.modules:
        # Ray has been shut down, but on a slow machine its threads may still abort the process
        # during interpreter shutdown, which would change the exit status.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # closed
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _run(args: list[str] | None) -> int:
    try:
        # Commands return nothing; a status comes from ctx.exit and --help.
        return int(cli.main(args, prog_name="dtwpt", standalone_mode=False) or 0)
    except Stopped as stopped:
        # Only the interpreter's shutdown follows.
        _on_stop_signals(signal.SIG_IGN)
        name = signal.Signals(stopped.number).name
        note(f"dtwpt: stopped by {'Ctrl-C' if name == 'SIGINT' else name}, {stopped.outcome}")
        return 128 + stopped.number
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "dtwpt"
        note(f"{where}: {error.format_message()} (see {where} --help)")
        return error.exit_code
    except OSError as error:
        # Without its "[Errno 2]", which does not help a user.
        where = f"{error.filename}: " if error.filename else ""
        note(f"dtwpt: {where}{error.strerror or error}")
    except MemoryError as error:
        note(f"dtwpt: not enough memory: {error}")
    except (ImportError, TypeError, ValueError) as error:
        note(f"dtwpt: {error}")
    return FAILED


def _on_stop_signals(handler: Any) -> None:
    for name in STOP_SIGNALS:
        number = getattr(signal, name, None)  # Windows lacks some
        # One that is ignored (nohup, a job in the background) stays ignored.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
