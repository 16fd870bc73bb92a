"""The table of features in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.settings import Settings

__all__ = ["FeatureTable", "Skipped", "versions"]


class Skipped(NamedTuple):
    """A file without features, and why."""

    file: str
    reason: str


def versions(device: str = "numpy") -> dict[str, str]:
    """Return the versions of dtwpt and of the packages that read and transform images."""
    import dtwpt

    versions = {"dtwpt": dtwpt.__version__}
    for name in ("numpy", "pillow", "tifffile", *(() if device == "numpy" else ("torch",))):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # put there without its metadata
            versions[name] = "unknown"
    return versions


@dataclass(frozen=True)
class FeatureTable:
    """The features of images, one row each.

    Attributes
    ----------
    features : ndarray of float32, shape (n, F)
    feature_names : list of str, length F
    files : list of str, length n
        The paths as they were found.
    settings : Settings
    skipped : list of Skipped
        Files that could not be used, with the reason.
    made_by : dict
        Versions of dtwpt and of the packages that read the images.
    """

    features: NDArray[np.float32]
    feature_names: list[str]
    files: list[str]
    settings: Settings
    skipped: list[Skipped] = field(default_factory=list)
    made_by: dict[str, str] = field(default_factory=versions)

    @property
    def waiting(self) -> list[str]:
        """Return no files: a table is complete, other than a store."""
        return []
