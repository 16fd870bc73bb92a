"""Poolings that are stable under shifts: published cures as layers of one kind."""

from dtwpt.nn.pooling.adaptive import AdaptiveBlurPool2d
from dtwpt.nn.pooling.anchoring import anchor
from dtwpt.nn.pooling.blur import BlurPool2d
from dtwpt.nn.pooling.learned import LearnedPolyphasePool2d, anneal
from dtwpt.nn.pooling.max_blur import MaxBlurPool2d
from dtwpt.nn.pooling.mixed import MixedPolyphasePool2d, tips_loss
from dtwpt.nn.pooling.polyphase import PolyphasePool2d
from dtwpt.nn.pooling.spectral import SpectralPool2d
from dtwpt.nn.pooling.upsample import PolyphaseUpsample2d
from dtwpt.nn.pooling.wavelet import WaveletPool2d

__all__ = [
    "AdaptiveBlurPool2d",
    "BlurPool2d",
    "LearnedPolyphasePool2d",
    "MaxBlurPool2d",
    "MixedPolyphasePool2d",
    "PolyphasePool2d",
    "PolyphaseUpsample2d",
    "SpectralPool2d",
    "WaveletPool2d",
    "anchor",
    "anneal",
    "tips_loss",
]
