"""PyTorch modules: the transform, its operators, and first layers that are stable under shifts.

>>> import torch
>>> from dtwpt.nn import WaveletStem
>>> WaveletStem(free_channels=0)(torch.rand(1, 3, 64, 64)).shape
torch.Size([1, 64, 16, 16])
"""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError('dtwpt.nn needs torch: pip install "dtwpt[torch]"')

from dtwpt.nn.antialias import antialias_stem, restore_stem
from dtwpt.nn.antialiased import AntialiasedStem, ShiftAverage
from dtwpt.nn.circular import CircularConv2d
from dtwpt.nn.downsampling import replace_downsampling
from dtwpt.nn.downsampling_cost import DownsamplingCost, downsampling_cost
from dtwpt.nn.downsampling_report import DownsamplingReport, ReplacedPlace
from dtwpt.nn.learned import LearnedFilters
from dtwpt.nn.mixing import ColourMix, PacketMixing
from dtwpt.nn.modules import (
    CMod1d,
    CMod2d,
    DTCWPT1d,
    DTCWPT2d,
    IDTCWPT1d,
    IDTCWPT2d,
    RMax1d,
    RMax2d,
)
from dtwpt.nn.norm import EnergyNorm2d
from dtwpt.nn.pooling import (
    AdaptiveBlurPool2d,
    BlurPool2d,
    LearnedPolyphasePool2d,
    MaxBlurPool2d,
    MixedPolyphasePool2d,
    PolyphasePool2d,
    PolyphaseUpsample2d,
    SpectralPool2d,
    WaveletPool2d,
    anchor,
    anneal,
    tips_loss,
)
from dtwpt.nn.stem import WaveletStem
from dtwpt.nn.surgery import StemCost, replace_stem, stem_cost

__all__ = [
    "AdaptiveBlurPool2d",
    "AntialiasedStem",
    "BlurPool2d",
    "CMod1d",
    "CMod2d",
    "CircularConv2d",
    "ColourMix",
    "DTCWPT1d",
    "DTCWPT2d",
    "DownsamplingCost",
    "DownsamplingReport",
    "EnergyNorm2d",
    "IDTCWPT1d",
    "IDTCWPT2d",
    "LearnedFilters",
    "LearnedPolyphasePool2d",
    "MaxBlurPool2d",
    "MixedPolyphasePool2d",
    "PacketMixing",
    "PolyphasePool2d",
    "PolyphaseUpsample2d",
    "RMax1d",
    "RMax2d",
    "ReplacedPlace",
    "ShiftAverage",
    "SpectralPool2d",
    "StemCost",
    "WaveletPool2d",
    "WaveletStem",
    "anchor",
    "anneal",
    "antialias_stem",
    "downsampling_cost",
    "replace_downsampling",
    "replace_stem",
    "restore_stem",
    "stem_cost",
    "tips_loss",
]
