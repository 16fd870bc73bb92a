"""The table of features and its file."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.atomic import check_writable, replacing
from dtwpt.extract.settings import Settings

__all__ = ["FeatureTable", "Skipped", "load", "load_settings", "save"]


class Skipped(NamedTuple):
    """A file without features, and why."""

    file: str
    reason: str


def _versions() -> dict[str, str]:
    import dtwpt

    versions = {"dtwpt": dtwpt.__version__}
    for name in ("numpy", "pillow", "tifffile"):
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
    made_by: dict[str, str] = field(default_factory=_versions)


def save(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    """Save a table as .npz, whole or not at all.

    The file at ``path`` is replaced at the very end, so that it is at any time either what it was
    or complete. Equal tables give equal files, byte for byte.

    Parameters
    ----------
    table : FeatureTable
    path : path
        Ends in ``.npz``; its folder exists. The arrays in it, all of which
        ``np.load(path, allow_pickle=False)`` reads:

        ===================  ===================================================================
        ``features``         float32, (n, F)
        ``feature_names``    str, (F,)
        ``files``            str, (n,)
        ``settings``         str, (): JSON of the settings, and ``made_by`` with versions
        ``skipped``          str, (k,): files without features
        ``skipped_reasons``  str, (k,)
        ===================  ===================================================================

    Raises
    ------
    ValueError
        If the name does not end in ``.npz``.
    OSError
        If it cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from dtwpt.extract import FeatureTable, Settings, load, save
    >>> table = FeatureTable(np.zeros((1, 2), np.float32), ["p", "q"], ["a.png"], Settings())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(table, os.path.join(folder, "features.npz"))
    ...     load(os.path.join(folder, "features.npz")).files
    ['a.png']
    """
    check_npz(path)
    with replacing(path) as file:
        np.savez(
            file,
            features=table.features,
            feature_names=_strings(table.feature_names),
            files=_strings(table.files),
            settings=np.array(json.dumps({**table.settings.to_dict(), "made_by": table.made_by})),
            skipped=_strings([skipped.file for skipped in table.skipped]),
            skipped_reasons=_strings([skipped.reason for skipped in table.skipped]),
        )


def check_npz(path: str | os.PathLike[str]) -> None:
    """Raise what :func:`save` would, as far as it can be known before."""
    if not os.fspath(path).lower().endswith(".npz"):
        raise ValueError(f"the output must be named *.npz, got {os.fspath(path)!r}")
    check_writable(path)


def _strings(strings: list[str]) -> NDArray[np.str_]:
    return np.array(strings, dtype=np.str_)


def load(path: str | os.PathLike[str]) -> FeatureTable:
    """Load a table that :func:`save` saved.

    Parameters
    ----------
    path : path

    Returns
    -------
    FeatureTable

    Raises
    ------
    ValueError
        If it is not a file of features.
    OSError
        If it cannot be read.
    """
    arrays = _arrays(
        path, "features", "feature_names", "files", "settings", "skipped", "skipped_reasons"
    )
    settings, made_by = _settings(arrays["settings"], path)
    skipped = zip(arrays["skipped"].tolist(), arrays["skipped_reasons"].tolist(), strict=True)
    return FeatureTable(
        features=arrays["features"],
        feature_names=arrays["feature_names"].tolist(),
        files=arrays["files"].tolist(),
        settings=settings,
        skipped=[Skipped(*pair) for pair in skipped],
        made_by=made_by,
    )


def load_settings(path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings and the versions that made a file, without loading its features.

    Parameters
    ----------
    path : path

    Returns
    -------
    settings : Settings
    made_by : dict

    Raises
    ------
    ValueError
        If it is not a file of features.
    OSError
        If it cannot be read.
    """
    return _settings(_arrays(path, "settings")["settings"], path)


def _arrays(path: str | os.PathLike[str], *names: str) -> dict[str, NDArray[Any]]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise _not_features(path) from error


def _settings(array: NDArray[Any], path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    try:
        values = json.loads(str(array))
        made_by = {str(name): str(value) for name, value in values.pop("made_by").items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_features(path) from error
    try:
        return Settings.from_dict(values), made_by
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings in {os.fspath(path)!r}: {error}") from error


def _not_features(path: str | os.PathLike[str]) -> ValueError:
    return ValueError(f"{os.fspath(path)!r} is not a file of features saved by dtwpt")
