"""Packet features as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data

from dtwpt.features import packet_feature_names, packet_features
from dtwpt.wavelets import Wavelet

__all__ = ["PacketFeatures"]
