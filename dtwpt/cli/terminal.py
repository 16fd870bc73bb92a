"""Terminal output of the commands: progress, messages, suppressed noise."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click

#: Exit statuses; 2 is for wrong usage.
FAILED = 1
SOME_SKIPPED = 3
#: Signals that ask to stop.
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

#: Maximum number of files or kernels named on the terminal.
SHOWN = 20


class Stopped(BaseException):
    """A signal asked to stop; ``outcome`` describes the state of the work."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.outcome = "nothing written"


def open_streams() -> None:
    """Replace closed standard streams, and make all of them accept any character.

    Otherwise, the next files opened would get their numbers, and receive what libraries print.
    """
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:
            os.close(number)
            break
        os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            # For names with characters that the terminal cannot show.
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Let only Python write to stderr: libtiff and other libraries print warnings."""
    ours = sys.stderr
    kept = os.dup(2)
    with (
        open(kept, "w", buffering=1, encoding=ours.encoding, errors=ours.errors) as stream,
        open(os.devnull, "wb") as nowhere,
    ):
        try:
            os.dup2(nowhere.fileno(), 2)  # worker processes inherit it
            sys.stderr = stream
            yield
        finally:
            sys.stderr = ours
            os.dup2(kept, 2)


@contextmanager
def show_progress(
    how: str | None = None, unit: str = "image"
) -> Iterator[Callable[[int, int], None] | None]:
    """Show progress: a bar on a terminal, elsewhere a line every 30 seconds.

    It starts at the first report of work done and total work: rate and remaining time are those
    since then.

    Parameters
    ----------
    how : {"plain", "json", "none"}, optional
        Readable lines, JSON lines, or nothing, on a terminal or not.
    unit : str
    """
    if how == "none":
        yield None
        return
    if how is not None or not sys.stderr.isatty():
        yield _Lines(unit, how == "json")
        return
    from dtwpt.extract.progress import bar

    with bar(unit, leave=False) as show:
        yield show


class _Lines:
    """A line now and then; those for programs also at the beginning and the end."""

    # Seconds between two lines.
    _PLAIN, _JSON = 30.0, 1.0

    def __init__(self, unit: str, as_json: bool) -> None:
        self._unit, self._as_json = unit, as_json
        self._pause = self._JSON if as_json else self._PLAIN
        self._before: int | None = None
        self._started = self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        first = self._before is None
        if self._before is None:
            self._before, self._started, self._last = done, now, now
        at_an_end = self._as_json and (first or done == total)
        if not at_an_end and now - self._last < self._pause:
            return
        self._last = now
        seconds = now - self._started
        rate = (done - self._before) / seconds if seconds else 0.0
        left = (total - done) / rate if rate else None
        if self._as_json:
            numbers = {"done": done, "total": total, "seconds": seconds, "left": left}
            note(json.dumps(numbers))
        else:
            then = "" if left is None else f", about {duration(left)} left"
            note(f"{done} of {plural(total, self._unit)}, {rate:.1f} a second{then}")


def duration(seconds: float) -> str:
    """Return a time in a suitable unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(
        os, "sched_getaffinity"
    ):  # fewer than the machine has, in a container or a batch job
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plural(count: int, noun: str) -> str:
    """Return a number of things."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def one_line(text: str) -> str:
    """Return text with control characters escaped, such as a newline in a name.

    Passwords and signatures in URLs are masked.
    """
    if "://" in text:
        from dtwpt.extract.images.errors import without_secrets

        text = without_secrets(text)
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def note(text: str) -> None:
    """Print a one-line note on stderr, if it is open."""
    with suppress(OSError):  # such as a terminal that is gone
        click.echo(one_line(text), err=True)


def tell_skipped(skipped: Sequence[tuple[str, str]], output: str) -> None:
    """Print which files were skipped, and why; if many, where all are listed."""
    for file, reason in skipped[:SHOWN]:
        note(f"skipped {file}: {reason}")
    if len(skipped) > SHOWN:
        note(f"skipped {len(skipped) - SHOWN} more, all listed in {output}")


def need_matplotlib() -> None:
    """Report missing matplotlib, or choose a backend without display."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "dtwpt[plot]"') from error
    matplotlib.use("Agg")  # no display needed
