"""Cost of subsampling: parameters and multiply-accumulates of a network and its poolings."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dtwpt.checks import as_pair
from dtwpt.nn.downsampling_layers import Pooled2d, PooledConv2d, PooledMax2d
from dtwpt.nn.locate import copied, refuse_wrapper

__all__ = ["DownsamplingCost", "downsampling_cost"]


class DownsamplingCost(NamedTuple):
    """Learned parameters and multiply-accumulates for one image.

    Attributes
    ----------
    parameters, macs : int
        Of the network.
    pool_parameters, pool_macs : int
        Of its poolings alone; included in the former.
    """

    parameters: int
    macs: int
    pool_parameters: int
    pool_macs: int


def downsampling_cost(model: nn.Module, size: int | tuple[int, int] = 224) -> DownsamplingCost:
    """Count parameters and multiply-accumulates of a network and of its poolings.

    Parameters
    ----------
    model : torch.nn.Module
        Before or after :func:`replace_downsampling`.
    size : int or (int, int), default: 224
        Rows and columns of the image.

    Returns
    -------
    DownsamplingCost
        Multiply-accumulates are half of what ``torch.utils.flop_counter.FlopCounterMode`` counts:
        those of convolutions and matrix products. Norms and sums of phases are not counted.

    Raises
    ------
    TypeError, ValueError
        If the network has no convolution, or an argument does not fit.

    Examples
    --------
    >>> from torch import nn
    >>> from dtwpt.nn import downsampling_cost
    >>> downsampling_cost(nn.Conv2d(3, 8, 3, 2, 1), 32)
    DownsamplingCost(parameters=224, macs=55296, pool_parameters=0, pool_macs=0)
    """
    from torch.utils.flop_counter import FlopCounterMode

    import dtwpt.engine.torch_flops  # noqa: F401 - counts our operators

    rows, columns = as_pair(size, "size")
    refuse_wrapper(model)
    first: Any = next((m for m in model.modules() if hasattr(m, "in_channels")), None)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no convolution")
    model = copied(model).eval()
    holders = [m for m in model.modules() if isinstance(m, (Pooled2d, PooledConv2d, PooledMax2d))]
    pools = [pool for m in holders for pool in (m.before, m.after) if pool is not None]
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    shape = 1, first.in_channels, rows, columns
    spent: list[int] = []
    # Not on "meta": the computation may depend on the device.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), fake, FlopCounterMode(display=False) as counter:
        for pool in pools:
            pool.register_forward_pre_hook(lambda *_: spent.append(-counter.get_total_flops()))
            pool.register_forward_hook(lambda *_: spent.append(counter.get_total_flops()))
        model(torch.empty(shape, dtype=like.dtype, device=like.device))
    learned = {id(p): p.numel() for pool in pools for p in pool.parameters()}
    return DownsamplingCost(
        sum(parameter.numel() for parameter in model.parameters()),
        counter.get_total_flops() // 2,
        sum(learned.values()),
        sum(spent) // 2,
    )
