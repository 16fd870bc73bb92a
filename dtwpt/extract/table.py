"""The table of features in memory, and the base class it shares with a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine import cpu
from dtwpt.extract.inputs import with_keys
from dtwpt.extract.settings import Settings


class Skipped(NamedTuple):
    """A file without features, and why."""

    file: str
    reason: str


def versions(device: str = "numpy") -> dict[str, str]:
    """Return the versions of dtwpt and of the packages that read images, and the engine."""
    import dtwpt

    versions = {"dtwpt": dtwpt.__version__}
    if device == "numpy":
        versions["engine"] = cpu.engine()
    for name in ("numpy", "pillow", "tifffile", *(() if device == "numpy" else ("torch",))):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # installed without metadata
            versions[name] = "unknown"
    return versions


def as_text(names: Sequence[str]) -> list[str]:
    r"""Return names with undecodable bytes written as ``\xff``."""
    return [
        name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for name in names
    ]


class Rows:
    """Methods for rows, common to tables and stores."""

    features: Any
    feature_names: list[str]
    files: list[str]
    labels: list[str] | None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: row for row, (key, _) in enumerate(with_keys(self.files))}

    def row(self, file: str | os.PathLike[str]) -> NDArray[np.float32]:
        """Return the features of one file, shape (F,).

        Parameters
        ----------
        file : path
            As in ``files``, or an equivalent spelling.

        Raises
        ------
        KeyError
            If there are no features of it.

        Examples
        --------
        >>> import numpy as np
        >>> from dtwpt.extract import FeatureTable, Settings
        >>> table = FeatureTable(np.eye(2, dtype=np.float32), ["p", "q"], ["a", "b"], Settings())
        >>> table.row("./b").tolist()
        [0.0, 1.0]
        """
        name = os.fspath(file)
        given = "://" in name or os.pardir in name
        ((key, _),) = with_keys([name if given else os.path.normpath(name)])
        if key not in self._places:
            raise KeyError(f"no features of {name!r}")
        features: NDArray[np.float32] = self.features[self._places[key]]
        return features

    def to_arrow(self) -> Any:
        """Return a table of pyarrow: the columns ``file``, ``label`` if given, and features.

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        """
        try:
            import pyarrow
        except ImportError as error:
            raise ImportError('it needs pyarrow: pip install "dtwpt[extract]"') from error
        columns = {"file": pyarrow.array(as_text(self.files), pyarrow.string())}
        if self.labels is not None:
            columns["label"] = pyarrow.array(as_text(self.labels), pyarrow.string())
        features = np.asarray(self.features).T
        columns |= {
            name: pyarrow.array(np.ascontiguousarray(column))
            for name, column in zip(self.feature_names, features, strict=True)
        }
        return pyarrow.table(columns)

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame, indexed by file, with ``label`` if given, and features.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("it needs pandas: pip install pandas") from error
        index = pandas.Index(as_text(self.files), name="file", dtype=object)
        frame = pandas.DataFrame(np.asarray(self.features), index, self.feature_names)
        if self.labels is not None:
            frame.insert(0, "label", self.labels)
        return frame


@dataclass(frozen=True)
class FeatureTable(Rows):
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
    labels : list of str, length n, or None
        Labels as requested; empty for files without.
    """

    features: NDArray[np.float32]
    feature_names: list[str]
    files: list[str]
    settings: Settings
    skipped: list[Skipped] = field(default_factory=list)
    made_by: dict[str, str] = field(default_factory=versions)
    labels: list[str] | None = None

    @property
    def waiting(self) -> list[str]:
        """Return an empty list: unlike a store, a table is always complete."""
        return []
