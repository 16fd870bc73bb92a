"""Features of single images: read, resize, crop, transform."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtwpt.engine import cpu
from dtwpt.extract.images.errors import ImageError
from dtwpt.extract.images.locations import open_file, size_and_time
from dtwpt.extract.images.reading import centre_crop, name_of, read_image, resize
from dtwpt.extract.settings import Settings
from dtwpt.features import packet_features


class Row(NamedTuple):
    """The features of one image, shape (F,), and its final size."""

    size: tuple[int, int]
    features: NDArray[np.float32]


class Stamp(NamedTuple):
    """The properties that identify a file; None if unknown."""

    size: int | None = None
    mtime_ns: int | None = None
    sha256: bytes | None = None


def stamp_of(path: str, contents: bool = False) -> Stamp:
    """Return size and modification time of a file and, if asked for, the hash of its contents."""
    try:
        size, mtime_ns = size_and_time(path)
    except Exception:  # any error is raised again when the file is read
        return Stamp()
    digest = None
    if contents:
        # A pipe or a device, which may be endless or block forever, is not opened.
        with contextlib.suppress(Exception), open_file(path) as file:
            digesting = hashlib.sha256()
            while block := file.read(1 << 20):
                digesting.update(block)
            digest = digesting.digest()
    return Stamp(size, None if mtime_ns is None else _as_int64(mtime_ns), digest)


def _as_int64(number: int) -> int:
    """Wrap a number to 64 bits, as in databases: times after the year 2262 exceed them."""
    return (number + 2**63) % 2**64 - 2**63


def image_of(source: Any, settings: Settings) -> NDArray[np.float32]:
    """Return an image ready to transform: read, resized, cropped; (H, W) or (3, H, W).

    Parameters
    ----------
    source : path, bytes, ...
        As for :func:`~dtwpt.extract.read_image`.
    settings : Settings

    Raises
    ------
    ImageError
        If the file cannot be used.
    """
    path = name_of(source)
    image = read_image(source, *settings.choice, limits=settings.limits)
    try:
        if settings.resize is not None:
            image = resize(image, settings.resize)
        if settings.crop is not None:
            image = centre_crop(image, settings.crop)
    except ValueError as error:
        raise ImageError(path, str(error)) from None
    except MemoryError:
        raise ImageError(path, "not enough memory to resize it") from None
    return np.ascontiguousarray(image)


def features_of_images(
    images: NDArray[np.float32], settings: Settings, device: str
) -> NDArray[np.float32]:
    """Return the features, shape (B, F), of images of one size, (B, H, W) or (B, 3, H, W).

    A row is not finite if the values of its image are too large for float32.
    """
    names = ("depth", "wavelet", "operator", "pool", "mode")
    arguments: Any = {name: getattr(settings, name) for name in names} | {"channel_axis": None}
    features: NDArray[np.float32]
    if device == "numpy":
        with np.errstate(over="ignore", invalid="ignore"):
            features = packet_features(images, **arguments)
    else:
        import torch

        with torch.no_grad():
            tensor = torch.from_numpy(images).to(device)
            features = packet_features(tensor, **arguments).cpu().numpy()
    return features.reshape(len(images), -1)


def rows_of(
    paths: Sequence[str],
    images: NDArray[np.float32],
    settings: Settings,
    device: str,
) -> list[Row | ImageError]:
    """Return the features, or the error, of each image; all have one size."""
    height, width = images.shape[-2:]
    try:
        features = features_of_images(images, settings, device)
    except (ValueError, MemoryError, RuntimeError) as error:
        if len(images) > 1:  # one image may be at fault, or the batch too large
            return [
                row
                for path, image in zip(paths, images, strict=True)
                for row in rows_of([path], image[None], settings, device)
            ]
        if isinstance(error, ValueError):
            return [ImageError(paths[0], str(error))]
        if isinstance(error, MemoryError) or _out_of_memory(error):
            return [ImageError(paths[0], f"not enough memory for {height}x{width} pixels")]
        raise
    finite = [bool(np.isfinite(row).all()) for row in features]
    return [
        Row((height, width), row)
        if is_finite
        else ImageError(path, f"values up to {np.abs(image).max():.3g} are too large for float32")
        for path, image, row, is_finite in zip(paths, images, features, finite, strict=True)
    ]


def _out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def features_of(source: Any, settings: Settings, device: str = "numpy") -> Row:
    """Return the final size of one image and its features, shape (F,).

    Raises
    ------
    ImageError
        If the file cannot be used.
    """
    (row,) = rows_of([name_of(source)], image_of(source, settings)[None], settings, device)
    if isinstance(row, ImageError):
        raise row
    return row


def another_size(
    path: str, size: tuple[int, int], first: str, first_size: tuple[int, int]
) -> ImageError:
    """Return the error of an image whose maps differ in size from those of the first one."""
    return ImageError(
        path,
        f"{size[0]}x{size[1]} pixels, but {first} has {first_size[0]}x{first_size[1]}: with pool "
        "none all images need one size, use resize or crop",
    )


def check_device(device: str) -> None:
    """Raise unless the transform can run on the device.

    Raises
    ------
    ValueError
        If torch does not know the device, or cannot use it on this machine.
    ImportError
        If it needs torch, which is not installed.
    """
    if device == "numpy":
        return
    try:
        import torch
    except ImportError as error:
        raise ImportError(f'device {device!r} needs torch: pip install "dtwpt[torch]"') from error
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"device {device!r} cannot be used: {reason}") from None


# Columns that may hold images.
_IMAGES = ("path", "image", "bytes")


def _columns_of(batch: Any) -> dict[Any, Any]:
    if isinstance(batch, Mapping):
        return dict(batch)
    if hasattr(batch, "column_names") and hasattr(batch, "to_pydict"):  # of pyarrow
        return dict(batch.to_pydict())
    if hasattr(batch, "columns") and hasattr(batch, "iloc"):  # of pandas
        return {name: batch[name].to_numpy() for name in batch.columns}
    if hasattr(batch, "to_pylist"):  # a column of pyarrow
        return {"path": batch.to_pylist()}
    if isinstance(batch, (str, bytes, os.PathLike)) or not hasattr(batch, "__iter__"):
        raise TypeError(f"a batch must be a sequence or columns, got {type(batch).__name__}")
    return {"path": list(batch)}


def _is_missing(source: Any) -> bool:
    """Whether a value stands for none: None, NaN or what pandas has for it."""
    return (
        source is None
        or (isinstance(source, float) and math.isnan(source))
        or type(source).__name__ == "NAType"
    )


class FeatureExtractor:
    """Features of images, as a callable for other pipelines (Ray, Dask, Spark, ...).

    It holds only settings, so it can be pickled, and it gives the same features as :func:`extract`,
    to the last bit with ``device="numpy"``: one thread, nothing learned, each image on its own.

    Parameters
    ----------
    settings : Settings, optional
        Default: ``Settings()``.
    device : str, default: "numpy"
        "numpy", or a device of torch such as "cuda" or "cpu"; torch agrees with NumPy to 1e-5 of
        the largest feature, not to the last bit.

    Raises
    ------
    ValueError, ImportError
        If the device cannot be used.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from dtwpt.extract import FeatureExtractor, Settings
    >>> extractor = FeatureExtractor(Settings(depth=1))
    >>> extractor(np.zeros((5, 32, 32), np.float32)).shape
    (5, 8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.npy")
    ...     np.save(path, np.eye(32))
    ...     batch = extractor({"path": [path, "nowhere.png"]})
    >>> batch["features"].shape, batch["error"].tolist()
    ((2, 8), ['', 'No such file or directory'])
    """

    def __init__(self, settings: Settings | None = None, device: str = "numpy") -> None:
        self.settings = Settings() if settings is None else settings
        self.device = device
        check_device(device)

    def __repr__(self) -> str:
        return f"FeatureExtractor({self.settings!r}, device={self.device!r})"

    def __call__(self, batch: Any) -> Any:
        """Return the features of a batch.

        Parameters
        ----------
        batch : ndarray, sequence, mapping, pandas.DataFrame or pyarrow.Table
            - Images of one size: an array (B, H, W) or, with ``colour="channels"``,
              (B, 3, H, W), already resized and cropped.
            - A sequence of images: anything that :func:`read_image` reads (paths, URLs, the
              bytes of files, PIL images, arrays), or a mapping with ``bytes`` or ``path``, as
              Hugging Face datasets have them.
            - Columns, with the images in ``path``, ``image`` or ``bytes``.

        Returns
        -------
        ndarray or dict
            For images of one size an array of float32 (B, F). Otherwise a dict: the columns that
            were given (``path`` for a sequence), ``features`` of float32 (B, F) and ``error``, a
            str each: empty on success, else the reason why the row is NaN.

        Raises
        ------
        TypeError
            If it is of another type.
        ValueError
            If a batch has images whose vectors are of different lengths (``pool="none"``), an
            array is of the wrong shape, or there is no column of images.
        """
        if isinstance(batch, np.ndarray) and batch.dtype.kind not in "OSUT":
            return self._images(batch)
        columns = _columns_of(batch)
        name = next((name for name in _IMAGES if name in columns), None)
        if name is None:
            raise ValueError(
                f"a batch needs a column {', '.join(map(repr, _IMAGES))}, got "
                f"{', '.join(map(repr, columns))}"
            )
        rows = [self._row(source) for source in columns[name]]
        found = [row for row in rows if isinstance(row, Row)]
        lengths = {row.features.size for row in found}
        if len(lengths) > 1:
            raise ValueError(
                f"images of different sizes in one batch give vectors of {sorted(lengths)} "
                "features: with pool none, use resize or crop"
            )
        length = lengths.pop() if lengths else self._usual_length()
        features = np.full((len(rows), length), np.nan, np.float32)
        for index, row in enumerate(rows):
            if isinstance(row, Row):
                features[index] = row.features
        errors = [row.reason if isinstance(row, ImageError) else "" for row in rows]
        return {**columns, "features": features, "error": np.array(errors, dtype=np.str_)}

    def _row(self, source: Any) -> Row | ImageError:
        if isinstance(source, Mapping):
            source = source.get("path") if source.get("bytes") is None else source["bytes"]
        if _is_missing(source):
            return ImageError("", "the row holds no image")
        try:
            with cpu.threads(1):
                return features_of(source, self.settings, self.device)
        except ImageError as error:
            return error

    def _images(self, images: NDArray[Any]) -> NDArray[np.float32]:
        colour = self.settings.colour == "channels"
        if images.ndim != (4 if colour else 3) or (colour and images.shape[1] != 3):
            expected = "(B, 3, H, W)" if colour else "(B, H, W)"
            raise ValueError(f"images must have shape {expected}, got {images.shape}")
        with cpu.threads(1):
            return features_of_images(images, self.settings, self.device)

    def _usual_length(self) -> int:
        size = self.settings.final_size()
        return 0 if size is None else len(self.settings.names(size))
