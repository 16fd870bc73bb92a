"""Packet features as a scikit-learn transformer."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils import check_array, gen_batches
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError('dtwpt.sklearn needs scikit-learn: pip install "dtwpt[sklearn]"') from error

from dtwpt.checks import as_int
from dtwpt.colour import COLOURS
from dtwpt.features import Depths, Pool, packet_feature_names, packet_features
from dtwpt.typing import Colour, Mode, Operator
from dtwpt.wavelets import AnyWavelet

__all__ = ["PacketFeatures"]

# Divisors of integers, by dtype.
_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0}
# Numbers of images transformed at a time; it bounds the memory, and no feature depends on it.
_BATCH = 2**22


class PacketFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn images into dual-tree complex wavelet packet features.

    Deterministic: nothing is learned from the data but their shape.

    Parameters
    ----------
    depth : int or sequence of int, default: 2
        Number of stages J; there are ``2 * 4**depth`` packets. Several: the features of each.
    wavelet : str or dtwpt.Wavelet, default: "qshift_b"
    operator : {"cmod", "rmax"}, default: "cmod"
        :func:`dtwpt.cmod2` or :func:`dtwpt.rmax2`.
    pool : {"mean", "std", "max", "none"}, int, (int, int) or sequence, default: "mean"
        "mean", "std", "max": one number per packet; "none": the whole maps; g or (rows, columns):
        averages over the cells of a grid; several, as for :func:`dtwpt.features.packet_features`.
    mode : {"symmetric", "reflect", "replicate", "periodic", "zero"}, default: "symmetric"
        Padding mode at the borders.
    image_shape : tuple of int, optional
        Shape (H, W) or (H, W, C) that the rows of a two-dimensional input have been flattened
        from. Without it each row of such an input is an image of a single row, that is a signal.
    colour : {"luma", "channels"}, default: "channels"
        "luma": features of the brightness of images with 1 to 4 channels, as ``dtwpt extract``
        computes them by default. "channels": the features of each channel, the first ones first.

    Attributes
    ----------
    image_shape_ : tuple of int
        Shape of one image, (H, W) or (H, W, C).
    n_features_in_ : int
        Numbers in one image.
    scale_ : float or None
        Divisor of integers in ``transform``: 255 or 65535 if ``fit`` saw uint8 or uint16, 1 if it
        saw other integers or values above 1; None, each dtype's own range, if it saw values up to
        1.

    See Also
    --------
    dtwpt.features.packet_features : the same features as a function.

    Notes
    -----
    Input of shape (n, H, W), (n, H, W, C) or (n, H * W * C). float32 stays float32, float64 stays
    float64. NaN and infinity are refused.

    uint8 and uint16 are scaled to 0..1. Pixels that were saved as text or sent as a list have lost
    their dtype, so ``transform`` scales all integers as ``fit`` did, and warns of values that are
    too large for that.

    Examples
    --------
    >>> import numpy as np
    >>> from dtwpt.sklearn import PacketFeatures
    >>> images = np.random.default_rng(0).random((10, 32, 32))
    >>> features = PacketFeatures(depth=2, pool=2).fit_transform(images)
    >>> features.shape
    (10, 128)
    """

    def __init__(
        self,
        depth: Depths = 2,
        wavelet: AnyWavelet = "qshift_b",
        operator: Operator = "cmod",
        pool: Pool = "mean",
        mode: Mode = "symmetric",
        image_shape: tuple[int, ...] | None = None,
        colour: Colour = "channels",
    ) -> None:
        self.depth = depth
        self.wavelet = wavelet
        self.operator = operator
        self.pool = pool
        self.mode = mode
        self.image_shape = image_shape
        self.colour = colour

    def fit(self, X: ArrayLike, y: Any = None) -> PacketFeatures:
        """Check the parameters and remember the shape of the images.

        Parameters
        ----------
        X : array_like, shape (n, H, W), (n, H, W, C) or (n, H * W * C)
        y : ignored

        Returns
        -------
        PacketFeatures
            Itself.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the shape of ``X`` does not fit, or ``X`` holds NaN or infinity.
        """
        X = self._check(X, reset=True)
        if X.ndim > 2:
            self.image_shape_ = X.shape[1:]
            if self.image_shape is not None and self._flattened_shape() != self.image_shape_:
                raise ValueError(f"image_shape is {self.image_shape}, but X holds {X.shape[1:]}")
        elif self.image_shape is None:
            self.image_shape_ = (1, X.shape[1])
        else:
            self.image_shape_ = self._flattened_shape()
        self._images(X)
        self.scale_ = _scale_of(X)
        self.n_features_in_ = math.prod(self.image_shape_)
        # One blank image shows whether depth, wavelet, operator, pool and mode go together.
        self._features(np.zeros((1, *self.image_shape_), np.float32))
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Compute the features of images.

        Parameters
        ----------
        X : array_like, shape (n, H, W), (n, H, W, C) or (n, H * W * C)
            Images of the shape seen in ``fit``.

        Returns
        -------
        ndarray, shape (n, F)
            In the order of :meth:`get_feature_names_out`.

        Raises
        ------
        ValueError
            If the images have another shape, or hold NaN or infinity.
        """
        check_is_fitted(self)
        images = self._images(self._check(X, reset=False))
        self._warn_of_scale(images)
        size = max(1, _BATCH // math.prod(self.image_shape_))
        batches = [self._features(images[batch]) for batch in gen_batches(len(images), size)]
        return np.concatenate(batches)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the features.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str objects, shape (F,)
            Operator, sign, vertical and horizontal packet, frequency (rad/pixel), orientation
            (degrees), statistic, place in the grid; with channels, ``c0_``, ``c1_``, ... before
            them.
        """
        check_is_fitted(self)
        names = packet_feature_names(
            self.image_shape_[:2], self.depth, self.wavelet, self.operator, self.pool
        )
        if len(self.image_shape_) == 3 and self.colour == "channels":
            channels = range(self.image_shape_[2])
            names = [f"c{channel}_{name}" for channel in channels for name in names]
        return np.array(names, dtype=object)

    def _check(self, X: Any, *, reset: bool) -> NDArray[Any]:
        ndim = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        if ndim > 2:
            X = check_array(X, dtype="numeric", ensure_2d=False, allow_nd=True, input_name="X")
            if X.ndim > 4:
                raise ValueError(
                    f"X must have shape (n, H, W), (n, H, W, C) or (n, H * W * C), got {X.shape}"
                )
        else:
            X = validate_data(self, X, dtype="numeric", reset=reset)
        checked: NDArray[Any] = X
        return checked

    def _flattened_shape(self) -> tuple[int, ...]:
        # Only called where image_shape is given.
        accepted = "(H, W) or (H, W, C), integers of at least 1"
        try:
            sides: Any = self.image_shape
            shape = tuple(as_int(side, "image_shape", accepted) for side in sides)
        except TypeError:
            shape = ()
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"image_shape must be {accepted}, got {self.image_shape!r}")
        return shape

    def _images(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return X as (n, H, W) or (n, H, W, C)."""
        if X.ndim > 2 and X.shape[1:] != self.image_shape_:
            raise ValueError(f"X must hold images of shape {self.image_shape_}, got {X.shape[1:]}")
        if X.ndim == 2 and X.shape[1] != math.prod(self.image_shape_):
            raise ValueError(
                f"X must have {math.prod(self.image_shape_)} features, flattened images of shape "
                f"{self.image_shape_}, got {X.shape[1]}"
            )
        return X.reshape(-1, *self.image_shape_)

    def _warn_of_scale(self, images: NDArray[Any]) -> None:
        """Warn if values are in other units than those seen in fit."""
        scale = self.scale_
        if scale is None or scale == 1 or not images.size:
            return
        largest = 1.0 if images.dtype.kind == "f" else scale
        if images.max() > largest:
            warnings.warn(
                f"X holds {images.dtype} values up to {images.max():g}, but fit saw integers that "
                f"were divided by {scale:g}: bring X to that scale",
                UserWarning,
                stacklevel=3,
            )

    def _features(self, images: NDArray[Any]) -> NDArray[np.floating[Any]]:
        own = _FULL_SCALE.get(images.dtype.name, 1.0)
        if images.dtype.kind in "biu" and self.scale_ not in (None, own):
            images = images.astype(np.float32) / np.float32(self.scale_)
        if self.colour not in COLOURS:
            raise ValueError(f"unknown colour {self.colour!r}; known colours: {', '.join(COLOURS)}")
        features = packet_features(
            images, self.depth, self.wavelet, self.operator, self.pool, self.mode,
            channel_axis=-1 if images.ndim == 4 else None,
            colour="luma" if self.colour == "luma" and images.ndim == 4 else None,
        )  # fmt: skip
        return features.reshape(len(images), -1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.requires_fit = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _scale_of(images: NDArray[Any]) -> float | None:
    """Return the divisor that brings integers to the units of these images."""
    if images.dtype.kind in "iu":
        return _FULL_SCALE.get(images.dtype.name, 1.0)
    return None if not images.size or np.abs(images).max() <= 1 else 1.0
