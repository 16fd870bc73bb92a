"""Memory of this process between one image and the next."""

from __future__ import annotations

import numpy as np


def keep_freed_memory() -> None:
    """Keep glibc from returning the memory of each image or tile to the system.

    When the freed block is the last one of the heap, glibc returns it; new pages then cost as much
    as half of the decoding. The largest block that was ever freed, up to 32 MiB, decides: twice as
    much is kept. The block below is never touched, so it takes no memory.
    """
    np.empty(31 << 20, np.uint8)
