"""Saving and loading of outputs by their suffix, and checks before a run."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.atomic import check_writable, replacing
from dtwpt.extract.images.errors import without_secrets
from dtwpt.extract.images.locations import located
from dtwpt.extract.inputs import check_spared
from dtwpt.extract.settings import Settings
from dtwpt.extract.table import FeatureTable, Skipped, as_text

if TYPE_CHECKING:
    from dtwpt.extract.store.reader import FeatureStore


#: The suffixes of tables.
TABLES = (".npz", ".npy", ".parquet", ".csv")
# Tables whose texts are in a separate file.
_IN_TWO = (".npy", ".csv")


def is_store_name(path: str | os.PathLike[str]) -> bool:
    """Whether an output of that name is a feature store."""
    return _suffix(path) == ".zarr"


def _suffix(path: str | os.PathLike[str]) -> str:
    return os.path.splitext(os.fspath(path).rstrip("/\\"))[1].lower()


def check_local(path: str | os.PathLike[str]) -> None:
    """Raise a ValueError if an output is a URL: it has to be replaced in one step."""
    if located(os.fspath(path)).kind == "url":
        raise ValueError(
            f"an output must be a path on this machine, got {without_secrets(os.fspath(path))!r}: "
            "write it to a disk and copy it"
        )


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise the errors of :func:`save` that can be found before a run."""
    suffix = _suffix(path)
    name = os.fspath(path)
    check_local(path)
    if is_store_name(path):
        raise ValueError(f"a store is made by extract_to_store, not saved as a table: {name!r}")
    if suffix not in TABLES:
        raise ValueError(
            f"the output must be named *{', *'.join(TABLES)} or, for a store, *.zarr, got {name!r}"
        )
    check_writable(path)
    if suffix in _IN_TWO:
        check_writable(_beside(path))
    if suffix == ".parquet":
        _pyarrow()


def files_of(path: str | os.PathLike[str]) -> list[str]:
    """Return the files of which an output of that name consists."""
    return [os.fspath(path), *([_beside(path)] if _suffix(path) in _IN_TWO else [])]


def _beside(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}.json"


def save(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    r"""Save a table atomically, in the format that the suffix names.

    The file at ``path`` is replaced at the very end, so it is always either the old one or
    complete. Equal tables give identical files.

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
            ``labels``           str, (n,), if there are
            ===================  ===============================================================

            NumPy stores all texts as wide as the longest one. Where one much longer name would make
            that more than 64 MB, two arrays are stored instead, such as ``files_utf8`` (uint8, all
            in a row) and ``files_lengths`` (in bytes).
        ``.npy``
            The matrix of features alone. Beside it, in ``path`` + ``.json``, which is replaced
            first: ``feature_names``, ``files``, ``labels``, ``settings``, ``made_by``, ``skipped``
            and the SHA-256 of the matrix's file, by which :func:`load` checks that they belong
            together.
        ``.csv``
            A line for each image: ``file``, ``label`` if given, and the features, with as many
            digits as float32 needs. The same ``.json`` is beside it.
        ``.parquet``
            A column ``file``, ``label`` if given, and one of float32 for each feature; settings,
            versions, skipped files and a checksum of everything as JSON in the metadata ``dtwpt``.
            Needs pyarrow. Bytes of a name that are not text are written as ``\xff``, here and in
            ``.csv``.

    Raises
    ------
    ValueError
        If the suffix is unknown, or the name is that of one of the images.
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
    savers = {".npz": save_npz, ".npy": _save_in_two, ".csv": _save_in_two}
    savers.get(_suffix(path), _save_parquet)(table, path)


def _about(table: FeatureTable) -> dict[str, Any]:
    return {
        "settings": table.settings.to_dict(),
        "made_by": table.made_by,
        "skipped": [skipped._asdict() for skipped in table.skipped],
    }


def _save_in_two(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    about = {"feature_names": table.feature_names, "files": table.files, **_about(table)}
    if table.labels is not None:
        about["labels"] = table.labels
    with replacing(path) as file:
        hashed = _Hashed(file)
        if _suffix(path) == ".csv":
            for block in csv_blocks(table):
                hashed.write(block)
        else:
            np.save(hashed, table.features, allow_pickle=False)
        about["features_sha256"] = hashed.digest.hexdigest()
        about["checksum"] = _sum(about)
        # It is replaced first: after an interruption, its hash shows that the two do not match.
        with replacing(_beside(path)) as beside:
            beside.write(json.dumps(about, indent=1).encode())


class _Hashed:
    """A file being written, with the hash of its contents."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._file.write(content)


def _sum(about: dict[str, Any], features: NDArray[np.float32] | None = None) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    if features is not None:
        digest.update(np.ascontiguousarray(features).data)
    return digest.hexdigest()


def _load_about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the contents of the .json beside a .npy or .csv file."""
    beside = _beside(path)
    try:
        with open(beside, "rb") as file:
            about = json.loads(file.read())
        if about.pop("checksum") != _sum(about):
            raise not_features(beside)
    except FileNotFoundError:
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
        raise ValueError(f"{os.fspath(path)!r} lacks {beside!r}, saved with it") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise not_features(beside) from error
    return dict(about)


def _load_in_two(path: str | os.PathLike[str]) -> FeatureTable:
    about = _load_about(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        if digest.hexdigest() != about["features_sha256"]:
            raise ValueError(
                f"{os.fspath(path)!r} is damaged, or from another run than {_beside(path)!r}: a "
                "run was killed between the two, extract again"
            )
        file.seek(0)
        names = about["feature_names"]
        csv = _suffix(path) == ".csv"
        features = read_csv(file, len(names)) if csv else np.load(file, allow_pickle=False)
    settings, made_by = _settings_in(about, path)
    skipped = [Skipped(**skipped) for skipped in about["skipped"]]
    labels = about.get("labels")
    return FeatureTable(features, names, about["files"], settings, skipped, made_by, labels)


def _settings_in(
    about: dict[str, Any], path: str | os.PathLike[str]
) -> tuple[Settings, dict[str, str]]:
    return settings_in({**about["settings"], "made_by": about["made_by"]}, path)


def _save_parquet(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    _, parquet = _pyarrow()
    made = table.to_arrow()
    labelled = table.labels is not None
    about = _about(table)
    about |= {"labelled": True} if labelled else {}
    texts = {name: made[name].to_pylist() for name in made.column_names[: 1 + labelled]}
    about["checksum"] = _sum({**about, **texts, "names": made.column_names}, table.features)
    with replacing(path) as file:
        parquet.write_table(
            made.replace_schema_metadata({"dtwpt": json.dumps(about)}),
            file,
            write_page_checksum=True,
        )


def _load_parquet(path: str | os.PathLike[str]) -> FeatureTable:
    _, parquet = _pyarrow()
    with open(path, "rb") as file:
        try:
            table = parquet.ParquetFile(file, page_checksum_verification=True).read()
            about = json.loads(table.schema.metadata[b"dtwpt"])
            checksum = about.pop("checksum")
            texts = 1 + bool(about.get("labelled"))
            files, *labels = (column.to_pylist() for column in table.columns[:texts])
            columns, names = table.columns[texts:], table.column_names
            features = np.empty((table.num_rows, len(columns)), np.float32)
            for place, column in enumerate(columns):
                features[:, place] = column.to_numpy()
            known = {**about, **dict(zip(names, (files, *labels), strict=False)), "names": names}
            if checksum != _sum(known, features):
                raise not_features(path)
        except Exception as error:  # of a damaged file, which may raise anything
            raise not_features(path) from error
    settings, made_by = _settings_in(about, path)
    skipped = [Skipped(**skipped) for skipped in about["skipped"]]
    return FeatureTable(features, names[texts:], files, settings, skipped, made_by, *labels)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('.parquet needs pyarrow: pip install "dtwpt[extract]"') from error
    return pyarrow, pyarrow.parquet


def load(path: str | os.PathLike[str], *, verify: bool = False) -> FeatureTable | FeatureStore:
    """Load features: a table that :func:`save` saved, or a store.

    Both kinds have the attributes ``features``, ``feature_names``, ``files``, ``settings``,
    ``skipped``, ``labels``, ``waiting`` and ``made_by``, and the methods ``row(file)``,
    ``to_pandas()`` and ``to_arrow()``. The features of a store are read from disk when indexed. A
    store may be loaded at any time, even while a run fills it.

    Parameters
    ----------
    path : path
        A folder is read as a store; a file as .npz, unless its suffix is that of another kind of
        table.
    verify : bool, default: False
        Read the whole store now, and compare everything with its checksums. Otherwise, features and
        paths are checked when read, and up to 100,000 rows of the manifest on loading.

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
        from dtwpt.extract.store.reader import open_store

        return open_store(path, verify=verify)
    loaders = {".npy": _load_in_two, ".csv": _load_in_two, ".parquet": _load_parquet}
    return loaders.get(_suffix(path), load_npz)(path)


def load_settings(path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings and versions of an output, without loading its features.

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
        from dtwpt.extract.store.reader import read_header

        header = read_header(os.fspath(path))
        return header.settings, header.made_by
    if _suffix(path) in _IN_TWO:
        return _settings_in(_load_about(path), path)
    if _suffix(path) == ".parquet":
        table = _load_parquet(path)
        return table.settings, table.made_by
    return load_npz_settings(path)


# NumPy's archives --------------------------------------------------------------------------------


# Names of the lists of texts in every table.
_TEXTS = ("feature_names", "files", "skipped", "skipped_reasons")
# Largest array of texts in bytes: each text takes as much as the longest one.
_MOST_BYTES = 1 << 26


def save_npz(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    """Save a table as .npz; see :func:`dtwpt.extract.save`."""
    about = json.dumps({**table.settings.to_dict(), "made_by": table.made_by})
    arrays: dict[str, Any] = {
        "features": table.features,
        **_strings("feature_names", table.feature_names),
        **_strings("files", table.files),
        "settings": np.array(about),
        **_strings("skipped", [skipped.file for skipped in table.skipped]),
        **_strings("skipped_reasons", [skipped.reason for skipped in table.skipped]),
        **({} if table.labels is None else _strings("labels", table.labels)),
    }
    with replacing(path) as file:
        np.savez(file, **arrays)


def _strings(name: str, strings: list[str]) -> dict[str, NDArray[Any]]:
    """Return an array of texts, or two arrays if padding to the longest text would be too large."""
    longest = max(map(len, strings), default=0)
    if 4 * longest * len(strings) <= _MOST_BYTES:
        return {name: np.array(strings, dtype=np.str_)}
    texts = [text.encode("utf-8", "surrogateescape") for text in strings]
    return {
        f"{name}_utf8": np.frombuffer(b"".join(texts), np.uint8),
        f"{name}_lengths": np.array([len(text) for text in texts], np.int64),
    }


def _texts(name: str, arrays: dict[str, NDArray[Any]]) -> list[str]:
    """Return the texts from the arrays that :func:`_strings` made."""
    if name in arrays:
        array = arrays[name]
        if array.ndim != 1 or array.dtype.kind != "U":
            raise ValueError
        return list(map(str, array.tolist()))
    whole, lengths = arrays[f"{name}_utf8"], arrays[f"{name}_lengths"]
    stops = np.cumsum(lengths)
    if whole.dtype != np.uint8 or lengths.ndim != 1 or (lengths < 0).any():
        raise ValueError
    if whole.size != (stops[-1] if len(stops) else 0):
        raise ValueError
    text = whole.tobytes()
    pairs = zip((stops - lengths).tolist(), stops.tolist(), strict=True)
    return [text[start:stop].decode("utf-8", "surrogateescape") for start, stop in pairs]


def load_npz(path: str | os.PathLike[str]) -> FeatureTable:
    """Return the table in a file; see :func:`dtwpt.extract.load`."""
    arrays = _arrays(path)
    try:
        settings = arrays["settings"]
        features = arrays["features"]
        names, files, skipped, reasons = (_texts(name, arrays) for name in _TEXTS)
        labels = _texts("labels", arrays) if {"labels", "labels_utf8"} & set(arrays) else None
    except (KeyError, ValueError, TypeError) as error:
        raise not_features(path) from error
    if (
        features.dtype != np.float32
        or features.shape != (len(files), len(names))
        or len(skipped) != len(reasons)
        or len(labels if labels is not None else files) != len(files)
    ):
        raise not_features(path)
    found, made_by = _settings(settings, path)
    left_out = [Skipped(*pair) for pair in zip(skipped, reasons, strict=True)]
    return FeatureTable(features, names, files, found, left_out, made_by, labels)


def load_npz_settings(path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return settings and versions alone; see :func:`dtwpt.extract.load_settings`."""
    return _settings(_arrays(path, "settings")["settings"], path)


def _arrays(path: str | os.PathLike[str], *names: str) -> dict[str, NDArray[Any]]:
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = [archive.getinfo(f"{name}.npy") for name in names] or archive.infolist()
            # Nothing is compressed, so that no small file can take a lot of memory.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise not_features(path)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                members_read = {name: arrays[name] for name in names or arrays}
    except Exception as error:  # of a damaged archive, which may raise anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk
        raise not_features(path) from error
    # NumPy returns the bytes of a member that is not an array.
    if not all(isinstance(array, np.ndarray) for array in members_read.values()):
        raise not_features(path)
    return members_read


def _settings(array: NDArray[Any], path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    try:
        values = json.loads(str(array))
    except (ValueError, RecursionError) as error:
        raise not_features(path) from error
    return settings_in(values, path)


def settings_in(values: Any, path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings and versions in JSON that was read from a file."""
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


# Text --------------------------------------------------------------------------------------------


# Lines formatted at a time.
_LINES = 1000


def csv_blocks(table: FeatureTable) -> Iterator[bytes]:
    """Yield file, label if given, and features, in the fewest digits that give the same float32."""
    labelled = table.labels is not None
    yield _lines([["file", *(["label"] * labelled), *table.feature_names]])
    for start in range(0, len(table.files), _LINES):
        part = slice(start, start + _LINES)
        texts = [as_text(table.files[part])]
        texts += [as_text(table.labels[part])] if table.labels is not None else []
        yield _lines(
            [*some, *map(str, features)]
            for *some, features in zip(*texts, table.features[part], strict=True)
        )


def _lines(rows: object) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return text.getvalue().encode()


def read_csv(file: BinaryIO, count: int) -> NDArray[np.float32]:
    """Return the features, which are the last ``count`` columns, and close the file."""
    with io.TextIOWrapper(file, "utf-8", newline="") as text:
        _, *rows = csv.reader(text)
    features = np.empty((len(rows), count), np.float32)
    for place, row in enumerate(rows):
        features[place] = [np.float32(value) for value in row[len(row) - count :]]
    return features
