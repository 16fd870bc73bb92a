"""Dual-tree complex wavelet packets: image features that are stable under shifts.

See https://arxiv.org/abs/2209.11740 for the theory, and the documentation for the conventions.
"""

from dtwpt.packets import PacketBank
from dtwpt.transform import cmod, cmod2, dtcwpt, dtcwpt2, idtcwpt, idtcwpt2, rmax, rmax2
from dtwpt.wavelets import Wavelet, wavelets

__version__ = "0.1.0"

__all__ = [
    "PacketBank",
    "Wavelet",
    "__version__",
    "cmod",
    "cmod2",
    "dtcwpt",
    "dtcwpt2",
    "idtcwpt",
    "idtcwpt2",
    "rmax",
    "rmax2",
    "wavelets",
]
