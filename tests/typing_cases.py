"""What a type checker sees of the library: checked by mypy in ``make lint``, never run.

Under strict settings, an ignored error that does not occur is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import dtwpt

if TYPE_CHECKING:
    import torch
    from typing_extensions import assert_type

    from dtwpt.typing import ComplexArray, RealArray

    def arrays_give_arrays(x: NDArray[np.uint8], signal: NDArray[np.float64]) -> None:
        assert_type(dtwpt.cmod2(x, depth=3, mode="reflect"), RealArray)
        assert_type(dtwpt.rmax2(x, pool=5, channel_axis=-1), RealArray)
        assert_type(dtwpt.cmod(signal), RealArray)
        assert_type(dtwpt.dtcwpt(signal), ComplexArray)
        c = dtwpt.dtcwpt2(x, wavelet="qshift_c")
        assert_type(c, ComplexArray)
        assert_type(dtwpt.idtcwpt2(c, shape=x.shape[-2:]), RealArray)
        assert_type(dtwpt.cmod2([[0.0, 1.0]]), RealArray)
        assert_type(dtwpt.features.packet_features(x, colour="luma"), RealArray)

    def tensors_give_tensors(x: torch.Tensor) -> None:
        assert_type(dtwpt.cmod2(x), torch.Tensor)
        assert_type(dtwpt.rmax(x), torch.Tensor)
        assert_type(dtwpt.idtcwpt2(dtwpt.dtcwpt2(x), x.shape[-2:]), torch.Tensor)
        assert_type(dtwpt.features.packet_features(x, pool=2), torch.Tensor)

    def names_are_known(x: NDArray[np.float32], images: NDArray[Any]) -> None:
        dtwpt.cmod2(x, mode="symetric")  # type: ignore[call-overload]
        dtwpt.dtcwpt2(x, wavelet="qshift_e")  # type: ignore[call-overload]
        dtwpt.features.packet_features(x, operator="max")  # type: ignore[call-overload]
        dtwpt.sklearn.PacketFeatures(mode="wrap")  # type: ignore[arg-type]
        for name in dtwpt.wavelets():
            dtwpt.rmax2(x, wavelet=name)
        dtwpt.extract.load("features.npz")
