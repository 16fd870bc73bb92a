"""Outputs by their suffix: saving, loading, and what can be known before the work."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from dtwpt.extract.apart import check_spared
from dtwpt.extract.atomic import check_writable, replacing
from dtwpt.extract.npz import load_npz, load_npz_settings, save_npz
from dtwpt.extract.settings import Settings
from dtwpt.extract.table import FeatureTable

if TYPE_CHECKING:
    from dtwpt.extract.store import FeatureStore

__all__ = ["TABLES", "check_output", "files_of", "is_store_name", "load", "load_settings", "save"]

#: The suffixes of tables.
TABLES = (".npz", ".npy", ".parquet")


def is_store_name(path: str | os.PathLike[str]) -> bool:
    """Whether an output of that name is a feature store."""
    return _suffix(path) == ".zarr"


def _suffix(path: str | os.PathLike[str]) -> str:
    return os.path.splitext(os.fspath(path).rstrip("/\\"))[1].lower()


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise what :func:`save` would, as far as it can be known before."""
    suffix = _suffix(path)
    if suffix not in TABLES:
        raise ValueError(
            f"the output must be named *{', *'.join(TABLES)} or *.zarr, got {os.fspath(path)!r}"
        )
    check_writable(path)
    if suffix == ".npy":
        check_writable(_beside(path))
    if suffix == ".parquet":
        _pyarrow()


def files_of(path: str | os.PathLike[str]) -> list[str]:
    """Return what an output of that name consists of."""
    return [os.fspath(path), *([_beside(path)] if _suffix(path) == ".npy" else [])]


def _beside(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}.json"


def save(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    r"""Save a table in the form that the suffix names, whole or not at all.

    The file at ``path`` is replaced at the very end, so that it is at any time either what it was
    or complete. Equal tables give equal files, byte for byte.

    Parameters
    ----------
    table : FeatureTable
    path : path
        Its folder exists. It ends in

        ``.npz``
            Arrays, all of which ``np.load(path, allow_pickle=False)`` reads; :func:`load` gives
            the table back:

            ===================  ===============================================================
            ``features``         float32, (n, F)
            ``feature_names``    str, (F,)
            ``files``            str, (n,)
            ``settings``         str, (): JSON of the settings, and ``made_by`` with versions
            ``skipped``          str, (k,): files without features
            ``skipped_reasons``  str, (k,)
            ===================  ===============================================================
        ``.npy``
            The matrix of features alone. Beside it, in ``path`` + ``.json``, which is replaced
            first: ``feature_names``, ``files``, ``settings``, ``made_by`` and ``skipped``.
        ``.parquet``
            A column ``file`` and one of float32 for each feature; settings, versions and skipped
            files as JSON in the metadata ``dtwpt``. Needs pyarrow. Bytes of a name that are not
            text are written as ``\xff``.

    Raises
    ------
    ValueError
        If the name ends in something else, or is that of one of the images.
    OSError
        If it cannot be written.
    ImportError
        If pyarrow is needed and not installed.

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
    check_output(path)
    check_spared(files_of(path), table.files)
    {".npz": save_npz, ".npy": _save_npy, ".parquet": _save_parquet}[_suffix(path)](table, path)


def _about(table: FeatureTable) -> dict[str, Any]:
    return {
        "settings": table.settings.to_dict(),
        "made_by": table.made_by,
        "skipped": [skipped._asdict() for skipped in table.skipped],
    }


def _save_npy(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    about = {"feature_names": table.feature_names, "files": table.files, **_about(table)}
    with replacing(_beside(path)) as file:
        file.write(json.dumps(about, indent=1).encode())
    with replacing(path) as file:
        np.save(file, table.features, allow_pickle=False)


def _save_parquet(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    pyarrow, parquet = _pyarrow()
    files = [
        name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for name in table.files
    ]
    columns = [pyarrow.array(files, pyarrow.string())]
    columns += [pyarrow.array(np.ascontiguousarray(column)) for column in table.features.T]
    made = pyarrow.table(columns, names=["file", *table.feature_names])
    with replacing(path) as file:
        parquet.write_table(
            made.replace_schema_metadata({"dtwpt": json.dumps(_about(table))}), file
        )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('.parquet needs pyarrow: pip install "dtwpt[extract]"') from error
    return pyarrow, pyarrow.parquet


def load(path: str | os.PathLike[str], *, verify: bool = False) -> FeatureTable | FeatureStore:
    """Load features: a table that :func:`save` saved as .npz, or a store.

    Both have the attributes ``features``, ``feature_names``, ``files``, ``settings``,
    ``skipped``, ``waiting`` and ``made_by``. The features of a store stay on the disk until they
    are indexed; it may be loaded at any time, also while a run fills it.

    Parameters
    ----------
    path : path
        A folder is taken for a store, a file for .npz.
    verify : bool, default: False
        Read all of a store now, and compare everything in it with its checksums. Without it, that
        is done with features and paths when they are read, and with up to 100,000 rows of the
        manifest.

    Returns
    -------
    FeatureTable or FeatureStore

    Raises
    ------
    ValueError
        If it is not a file of features or a store, or a damaged one.
    OSError
        If it cannot be read.
    ImportError
        If it is a store, and zarr is not installed.
    """
    if os.path.isdir(path) or is_store_name(path):
        from dtwpt.extract.store import open_store

        return open_store(path, verify=verify)
    return load_npz(path)


def load_settings(path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings and the versions that made an output, without loading its features.

    Parameters
    ----------
    path : path
        As for :func:`load`.

    Returns
    -------
    settings : Settings
    made_by : dict

    Raises
    ------
    ValueError
        If it is not a file of features or a store.
    OSError
        If it cannot be read.
    """
    if os.path.isdir(path) or is_store_name(path):
        from dtwpt.extract.store import read_header

        header = read_header(os.fspath(path))
        return header.settings, header.made_by
    return load_npz_settings(path)
