"""Images in DICOM files, by the package pydicom."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.errors import UnusableError
from dtwpt.extract.limits import Choice, Limits

__all__ = ["read_dicom"]


def read_dicom(file: BinaryIO, choice: Choice, limits: Limits) -> tuple[NDArray[Any], int | None]:
    """Read the image of a DICOM file.

    Grey values that the file rescales to physical units, such as Hounsfield units, and signed ones
    are floats in those units. Others are scaled by the bits that are stored of them. Windows for
    display are not applied.

    Returns
    -------
    pixels : ndarray, shape (H, W) or (H, W, 3)
    full_scale : int or None
        The value that stands for 1; None: that of the dtype.

    Raises
    ------
    UnusableError
        If pydicom is missing, or it holds no image of a kind that is read.
    """
    try:
        import pydicom
        from pydicom.pixels.processing import apply_rescale
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise UnusableError(
            'DICOM needs the package pydicom: pip install "dtwpt[codecs]"'
        ) from None
    data: Any = pydicom.dcmread(file)
    if "PixelData" not in data:
        raise UnusableError("is a DICOM file without an image")
    height, width, frames = int(data.Rows), int(data.Columns), int(data.get("NumberOfFrames") or 1)
    if choice.level or (choice.page or 0) >= frames:
        raise UnusableError(f"has no page {choice.page or 0} of level {choice.level}")
    limits.check_pixels(height, width)
    limits.check_memory(len(data.PixelData) + height * width * (4 * int(data.SamplesPerPixel) + 4))
    array = pixel_array(data, index=choice.page or 0)
    kind = data.PhotometricInterpretation
    bits = int(data.BitsStored)
    if array.ndim == 3:
        if array.shape[2] != 3 or bits != 8:
            raise UnusableError(f"DICOM of {kind}, {bits} bits and shape {array.shape}")
        return array, 255  # pydicom has made RGB of it
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnusableError(f"DICOM of photometric interpretation {kind} is unsupported")
    if "ModalityLUTSequence" in data:
        raise UnusableError("DICOM with a modality lookup table is unsupported")
    scaled = (data.get("RescaleSlope", 1), data.get("RescaleIntercept", 0)) != (1, 0)
    if scaled or data.PixelRepresentation:
        return np.asarray(apply_rescale(array, data), np.float32), None
    if bits > 16:
        raise UnusableError(f"DICOM of {bits} bits is unsupported")
    full_scale = 2**bits - 1
    if int(array.max()) > full_scale:
        raise UnusableError(f"holds values beyond the {bits} bits it states")
    return (full_scale - array if kind == "MONOCHROME1" else array), full_scale
