"""Tables as .npz files."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.atomic import replacing
from dtwpt.extract.settings import Settings
from dtwpt.extract.table import FeatureTable, Skipped

__all__ = ["load_npz", "load_npz_settings", "not_features", "save_npz", "settings_in"]


def save_npz(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    """Save a table as .npz; see :func:`dtwpt.extract.save`."""
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


def _strings(strings: list[str]) -> NDArray[np.str_]:
    return np.array(strings, dtype=np.str_)


def load_npz(path: str | os.PathLike[str]) -> FeatureTable:
    """Return the table in a file; see :func:`dtwpt.extract.load`."""
    arrays = _arrays(
        path, "features", "feature_names", "files", "settings", "skipped", "skipped_reasons"
    )
    settings, made_by = _settings(arrays["settings"], path)
    features = arrays["features"]
    lists = {name: arrays[name] for name in arrays if name not in ("features", "settings")}
    names, files, skipped, reasons = lists.values()
    if (
        features.dtype != np.float32
        or features.shape != (files.size, names.size)
        or skipped.shape != reasons.shape
        or any(array.ndim != 1 or array.dtype.kind != "U" for array in lists.values())
    ):
        raise not_features(path)
    return FeatureTable(
        features=features,
        feature_names=names.tolist(),
        files=files.tolist(),
        settings=settings,
        skipped=[Skipped(*pair) for pair in zip(skipped.tolist(), reasons.tolist(), strict=True)],
        made_by=made_by,
    )


def load_npz_settings(path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return settings and versions alone; see :func:`dtwpt.extract.load_settings`."""
    return _settings(_arrays(path, "settings")["settings"], path)


def _arrays(path: str | os.PathLike[str], *names: str) -> dict[str, NDArray[Any]]:
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            for name in names:
                member = archive.getinfo(f"{name}.npy")
                # Nothing is compressed: no small file takes a lot of memory.
                if member.compress_type != zipfile.ZIP_STORED:
                    raise not_features(path)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names}
    except Exception as error:  # of a damaged archive, which may raise anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk
        raise not_features(path) from error


def _settings(array: NDArray[Any], path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    try:
        values = json.loads(str(array))
    except (ValueError, RecursionError) as error:
        raise not_features(path) from error
    return settings_in(values, path)


def settings_in(values: Any, path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings and versions in what JSON has been read from a file."""
    try:
        values = dict(values)
        made_by = {str(name): str(value) for name, value in values.pop("made_by").items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_features(path) from error
    try:
        return Settings.from_dict(values), made_by
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings in {os.fspath(path)!r}: {error}") from error


def not_features(path: str | os.PathLike[str]) -> ValueError:
    """Return the error of a file that holds something else, or is damaged."""
    return ValueError(f"{os.fspath(path)!r} is not a file of features saved by dtwpt")
