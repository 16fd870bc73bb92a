"""Least-squares correction of the convolutions after a changed layer: refit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.nn.calls import quiet

__all__ = ["Fitted", "Target", "can_refit", "refit"]

# Factor of the ridge, which grows with the inputs of a kernel and falls with the positions seen.
_RIDGE = 30.0
# Images whose moments are computed at a time.
_CHUNK = 6


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


class Target(NamedTuple):
    """A convolution to fit.

    ``place`` is the module whose input the convolution reads: itself or its container; ``norm`` a
    batch normalisation that reads its output, for the offset.
    """

    name: str
    place: nn.Module
    conv: nn.Module
    norm: nn.Module | None


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
    original: nn.Module, changed: nn.Module, targets: list[Target], images: Tensor, moved: Tensor
) -> list[Fitted]:
    r"""Fit convolutions of a changed network to reproduce the original outputs.

    Parameters
    ----------
    original, changed : torch.nn.Module
    targets : list of Target
        Named as in ``original``, of ``changed``.
    images, moved : Tensor, shape (N, C, H, W)
        Inputs of the original and of the changed network.

    Returns
    -------
    list of Fitted

    Notes
    -----
    One pass through each network: each convolution is fitted once its input has been computed by
    those fitted before. All outputs of the original convolutions are kept in memory for that.

    Let a be the inputs of a kernel in the changed network (mean removed), t the original output and
    W the kernel. The correction D minimises :math:`E |(W + D) a - t|^2 + \lambda \sum_j E a_j^2
    D_j^2`, :math:`\lambda` being a multiple of kernel size over the number of places. Channels that
    are always zero are left alone.
    """
    outputs: dict[str, list[Tensor]] = {target.name: [] for target in targets}
    fitted: list[Fitted] = []
    handles: list[Any] = []
    with quiet(original):
        for name, found in outputs.items():

            def keep(_: Any, __: Any, out: Tensor, found: list[Tensor] = found) -> None:
                found.append(out.clone())  # what follows may work in place

            handles.append(original.get_submodule(name).register_forward_hook(keep))
        try:
            for batch in images.split(_CHUNK):  # type: ignore[no-untyped-call]
                original(batch)
        finally:
            for handle in handles:
                handle.remove()
    handles = []
    with quiet(changed):
        for k, target in enumerate(targets):

            def fit(_: Any, args: tuple[Tensor], k: int = k, target: Target = target) -> None:
                handles[k].remove()  # the convolution is called by the fit, too
                wanted = torch.cat(outputs.pop(target.name))
                fitted.append(_fit(target.conv, target.norm, args[0], wanted))

            handles.append(target.place.register_forward_pre_hook(fit))
        try:
            changed(moved)
        finally:
            for handle in handles:
                handle.remove()
    return fitted


def _fit(conv: Any, norm: nn.Module | None, inputs: Tensor, wanted: Tensor) -> Fitted:
    """Fit a convolution, in place."""
    sums: list[Any] = []
    for x, y in zip(inputs.split(_CHUNK), wanted.split(_CHUNK), strict=True):  # type: ignore[no-untyped-call]
        now = _moments(conv, x, y)
        sums = [a + b for a, b in zip(sums, now, strict=True)] if sums else now
    square, product, inputs_sum, residual_sum, count = sums
    mean, residual = inputs_sum / count, residual_sum / count
    running: Any = None if conv.bias is not None else getattr(norm, "running_mean", None)
    if conv.bias is None and running is None:  # no bias to hold an offset
        mean, residual = torch.zeros_like(mean), torch.zeros_like(residual)
    covariance = square / count - mean[:, :, None] * mean[:, None, :]
    correlation = product / count - residual[:, :, None] * mean[:, None, :]
    power = covariance.diagonal(dim1=1, dim2=2)
    floor = 1e-9 * power.amax(1, keepdim=True) + 1e-30
    ridge = torch.diag_embed(_RIDGE * covariance.shape[1] / count * power + floor)
    delta = torch.linalg.solve(covariance + ridge, correlation.mT).mT
    offset = (residual - (delta @ mean[:, :, None])[..., 0]).flatten()
    fitted = Fitted(conv, _kept(conv.weight), _kept(conv.bias), norm, _kept(running))
    conv.weight += delta.reshape(conv.weight.shape).to(conv.weight)
    if conv.bias is not None:
        conv.bias += offset.to(conv.bias)
    elif running is not None:
        running -= offset.to(running)
    return fitted


def _kept(values: Tensor | None) -> Any:
    return None if values is None else values.detach().cpu().clone()


def _moments(conv: Any, inputs: Tensor, target: Tensor) -> list[Any]:
    """Return sums over places of squares, products, inputs and residuals, group by group."""

    def by_group(values: Tensor) -> Tensor:
        values = values.transpose(0, 1).flatten(1)
        return values.reshape(conv.groups, -1, values.shape[1])

    residual = by_group(target - conv(inputs))
    if conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        down, across = conv.stride
        columns = by_group(inputs[..., ::down, ::across])
    else:
        columns = by_group(
            functional.unfold(inputs, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
        )
    if residual.dtype in (torch.float16, torch.bfloat16):
        residual, columns = residual.float(), columns.float()
    sums = [columns @ columns.mT, residual @ columns.mT, columns.sum(2), residual.sum(2)]
    # On the CPU first: some devices have no float64.
    return [values.cpu().double() for values in sums] + [columns.shape[2]]
