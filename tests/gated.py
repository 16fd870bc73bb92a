"""The command, and images that keep whoever reads them.

A job with an image that is never let go does not end by itself, however quick the machine is and
however late a test looks: what is done to it meanwhile happens in the middle of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.cli import main
from dtwpt.extract import extractor, load
from dtwpt.extract.extractor import image_of as read
from dtwpt.extract.run import workers as working
from dtwpt.extract.run.workers import _serve as serve_images
from dtwpt.extract.settings import Settings

GATED = "gated"
SLOW = "slow"


def image_of(path: str, settings: Settings) -> NDArray[np.float32]:
    name = os.path.basename(path)
    if SLOW in name:
        time.sleep(1)  # longer than a store waits with its first commit
    while GATED in name and not os.path.exists(f"{path}.open"):
        time.sleep(0.01)
    return read(path, settings)


def let_go(path: Path) -> None:
    """Have a gated image read."""
    Path(f"{path}.open").touch()


@contextlib.contextmanager
def running(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command in a session of its own, and kill its remaining processes in the end."""
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(what: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Wait for something that a running command has to do before it ends."""
    deadline = time.monotonic() + 600
    while not what():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline, "it does not get on"
        time.sleep(0.02)


def has_features(path: Path, least: int = 1) -> bool:
    """Whether a store is there and has some."""
    try:
        return len(load(path).files) >= least
    except FileNotFoundError:
        return False


def serve(*arguments: Any) -> None:
    """Read images in a process of its own, as the command's do."""
    for module in (working, extractor):
        vars(module).update(image_of=image_of)
    serve_images(*arguments)


if __name__ == "__main__":
    for module in (working, extractor):
        vars(module).update(image_of=image_of)
    vars(working).update(_serve=import_module("tests.gated").serve)  # as others can import it
    # Signals that whoever runs the tests ignores, as a job in the background does, are not here.
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    main()
