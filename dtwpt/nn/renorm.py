"""Statistics of batch normalisations, estimated again after a changed layer: renorm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dtwpt.nn.calls import quiet

__all__ = ["Renormed", "has_statistics", "renorm"]

# Most images that a normalisation sees at a time.
_BATCH = 64


@dataclass(frozen=True)
class Renormed:
    """A batch normalisation that was estimated again, and its former statistics, on the CPU."""

    norm: nn.Module
    statistics: dict[str, Tensor]

    @torch.no_grad()
    def restore(self) -> None:
        """Give the normalisation its former statistics."""
        for name, values in self.statistics.items():
            getattr(self.norm, name).copy_(values)


def has_statistics(module: nn.Module) -> bool:
    """Return whether a module is a batch normalisation that keeps mean and variance."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def renorm(model: nn.Module, norms: list[_BatchNorm], images: Tensor) -> list[Renormed]:
    """Estimate the statistics of some batch normalisations again, in place.

    What ``torch.optim.swa_utils.update_bn`` does, for these normalisations alone: the rest of the
    network runs in eval mode.

    Parameters
    ----------
    model : torch.nn.Module
    norms : list of _BatchNorm
        Of ``model``, with running statistics.
    images : Tensor, shape (N, C, H, W)
        Seen by up to 64 at a time; mean and variance are averages over these batches.

    Returns
    -------
    list of Renormed
    """
    found = []
    for norm in norms:
        names = ("running_mean", "running_var", "num_batches_tracked")
        values = {name: getattr(norm, name) for name in names}
        kept = {name: v.detach().cpu().clone() for name, v in values.items() if v is not None}
        found.append(Renormed(norm, kept))
    momenta = [norm.momentum for norm in norms]
    try:
        with quiet(model):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum, norm.training = None, True
            for batch in images.chunk(-(-len(images) // _BATCH)):  # never one image of several
                model(batch)
    except BaseException:
        for former in found:
            former.restore()
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return found
