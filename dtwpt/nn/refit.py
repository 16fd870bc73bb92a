"""Least-squares correction of the convolutions after a changed layer: refit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.nn.calls import quiet

__all__ = ["Fitted", "can_refit", "refit"]

# Factor of the ridge: it grows with the inputs of a kernel and falls with the places seen.
_RIDGE = 6.0


@dataclass(frozen=True)
class Fitted:
    """A convolution that was fitted, and its former values, on the CPU.

    ``norm`` is the batch normalisation after it if that took up the convolution's offset.
    """

    conv: nn.Module
    weight: Tensor
    bias: Tensor | None
    norm: nn.Module | None
    mean: Tensor | None

    @torch.no_grad()
    def restore(self) -> None:
        """Give convolution and normalisation their former values."""
        for module, name, values in (
            (self.conv, "weight", self.weight),
            (self.conv, "bias", self.bias),
            (self.norm, "running_mean", self.mean),
        ):
            if values is not None:
                getattr(module, name).copy_(values)


class _Reached(Exception):
    """Ends a pass at the module that is looked at."""


def can_refit(module: nn.Module) -> bool:
    """Return whether a module is a convolution whose kernels are parameters and may be changed."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and isinstance(module.__dict__["_parameters"].get("weight"), nn.Parameter)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.weight.is_floating_point()
    )


def refit(
    original: nn.Module,
    changed: nn.Module,
    old: nn.Module,
    new: nn.Module,
    norm: nn.Module | None,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
) -> Fitted:
    r"""Fit a convolution of a changed network to give what the original one gives.

    Parameters
    ----------
    original, changed : torch.nn.Module
    old, new : torch.nn.Module
        The convolution, in either network.
    norm : torch.nn.Module or None
        A batch normalisation that reads the changed convolution, for its offset.
    batches : callable
        Returns pairs of images, for the original and the changed network.

    Returns
    -------
    Fitted

    Notes
    -----
    With a the inputs of a kernel (mean removed) of the changed network, t the original output and W
    the kernel, the correction D minimises
    :math:`E |(W + D) a - t|^2 + \lambda \sum_j E a_j^2 D_j^2`, :math:`\lambda` being a multiple of
    kernel size over the number of places. Channels that are always zero are left alone.
    """
    conv: Any = new
    sums: list[Any] = []
    for still, moved in batches():
        target = _until(original, old, still, before=False)
        inputs = _until(changed, new, moved, before=True)
        now = _moments(conv, inputs, target)
        sums = [a + b for a, b in zip(sums, now, strict=True)] if sums else now
    square, product, inputs_sum, residual_sum, count = sums
    mean, residual = inputs_sum / count, residual_sum / count
    running: Any = None if conv.bias is not None else getattr(norm, "running_mean", None)
    if conv.bias is None and running is None:  # no place for an offset
        mean, residual = torch.zeros_like(mean), torch.zeros_like(residual)
    covariance = square / count - mean[:, :, None] * mean[:, None, :]
    correlation = product / count - residual[:, :, None] * mean[:, None, :]
    power = covariance.diagonal(dim1=1, dim2=2)
    size = covariance.shape[1]
    floor = 1e-9 * power.amax(1, keepdim=True) + 1e-30
    ridge = torch.diag_embed(_RIDGE * size / count * power + floor)
    delta = torch.linalg.solve(covariance + ridge, correlation.mT).mT
    offset = (residual - (delta @ mean[:, :, None])[..., 0]).flatten()
    fitted = Fitted(conv, *(_kept(v) for v in (conv.weight, conv.bias)), norm, _kept(running))
    with torch.no_grad():
        conv.weight += delta.reshape(conv.weight.shape).to(conv.weight)
        if conv.bias is not None:
            conv.bias += offset.to(conv.bias)
        elif running is not None:
            running -= offset.to(running)
    return fitted


def _kept(values: Tensor | None) -> Any:
    return None if values is None else values.detach().cpu().clone()


def _moments(conv: nn.Conv2d, inputs: Tensor, target: Tensor) -> list[Any]:
    """Return sums over places of squares, products, inputs and residuals, group by group."""
    groups = conv.groups
    residual = (target - conv(inputs)).transpose(0, 1).flatten(1).unflatten(0, (groups, -1))
    if conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        down, across = conv.stride
        columns = inputs[..., ::down, ::across].transpose(0, 1).flatten(1)
    else:
        columns = functional.unfold(
            inputs, conv.kernel_size, conv.dilation, conv.padding, conv.stride
        )
        columns = columns.transpose(0, 1).flatten(1)
    columns = columns.unflatten(0, (groups, -1))
    if residual.dtype in (torch.float16, torch.bfloat16):
        residual, columns = residual.float(), columns.float()
    sums = [columns @ columns.mT, residual @ columns.mT, columns.sum(2), residual.sum(2)]
    # On the CPU first: some devices have no float64.
    return [values.cpu().double() for values in sums] + [columns.shape[2]]


def _until(model: nn.Module, module: nn.Module, x: Tensor, before: bool) -> Tensor:
    """Return input or output of a module for images x, computing nothing after it."""
    found: list[Tensor] = []

    def stop(_: nn.Module, args: Any, out: Any = None) -> None:
        found.append(args[0] if before else out)
        raise _Reached

    with quiet(model):
        register = module.register_forward_pre_hook if before else module.register_forward_hook
        handle = register(stop)
        try:
            model(x)
        except _Reached:
            pass
        finally:
            handle.remove()
    return found[0]
