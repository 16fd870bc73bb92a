"""Dual-tree complex wavelet packets: image features that are stable under shifts.

See https://arxiv.org/abs/2209.11740 for the theory, and the documentation for the conventions.
Submodules are imported when they are first used: ``dtwpt.plot.filters(...)`` works after
``import dtwpt``.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from dtwpt.packets import PacketBank
from dtwpt.transform import cmod, cmod2, dtcwpt, dtcwpt2, idtcwpt, idtcwpt2, rmax, rmax2
from dtwpt.wavelets import Wavelet, wavelets

if _TYPE_CHECKING:
    from types import ModuleType as _ModuleType

    from dtwpt import augment as augment
    from dtwpt import extract as extract
    from dtwpt import features as features
    from dtwpt import invariance as invariance
    from dtwpt import metrics as metrics
    from dtwpt import nn as nn
    from dtwpt import plot as plot
    from dtwpt import scenes as scenes
    from dtwpt import sklearn as sklearn
    from dtwpt import typing as typing

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

_SUBMODULES = [
    *("augment", "extract", "features", "invariance", "metrics", "nn", "plot"),
    *("scenes", "sklearn", "typing"),
]


def __getattr__(name: str) -> "_ModuleType":
    if name in _SUBMODULES:
        return _import_module(f"dtwpt.{name}")
    raise AttributeError(f"module 'dtwpt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES})
