"""The command, and images that keep whoever reads them.

A job with an image that is never let go does not end by itself, however quick the machine is and
however late a test looks: what is done to it meanwhile happens in the middle of it.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtwpt.cli import main
from dtwpt.extract import decoding, pipeline
from dtwpt.extract.extractor import image_of as read
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


if __name__ != "tests.gated":  # in the processes that read as well
    for module in (decoding, pipeline):
        vars(module).update(image_of=image_of)

if __name__ == "__main__":
    # Signals that whoever runs the tests ignores, as a job in the background does, are not here.
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    main()
