"""Networks side by side, at four kinds of shift: compare."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dtwpt.checks import as_count
from dtwpt.metrics.correct import fidelity, worst_case_accuracy
from dtwpt.metrics.functional import consistency, flip_rate
from dtwpt.metrics.images import shifted_crops
from dtwpt.metrics.outputs import evaluation, shifted_outputs
from dtwpt.metrics.shifts import random_shifts

__all__ = ["KINDS", "compare"]

#: Each kind of shift: the method, and steps per pixel.
KINDS = {"crop": ("crop", 1), "roll": ("roll", 1), "fill": ("zero", 1), "half": ("fourier", 2)}

Model = Callable[[Tensor], Any]


def compare(
    models: Mapping[str, Model],
    images: Tensor,
    labels: Tensor,
    shifts: int = 4,
    *,
    draws: int = 4,
    kinds: tuple[str, ...] = ("crop", "roll", "fill", "half"),
    batch_size: int = 256,
    repeats: int = 5,
    seed: int = 0,
) -> Any:
    """Compare the accuracy, the stability under each kind of shift and the cost of networks.

    Parameters
    ----------
    models : mapping of str to torch.nn.Module or callable
        Each from (N, C, H - 2 * shifts, W - 2 * shifts) to logits (N, K), as for
        :func:`shifted_outputs`.
    images : Tensor, shape (N, C, H, W)
        Larger by ``shifts`` on each side than the models' input, for the crops. On the device and
        in the dtype that the models take.
    labels : Tensor, shape (N,), integers
        The true classes.
    shifts : int, default: 4
        The largest shift, pixels.
    draws : int, default: 4
        Random shifts of each image, the same ones for all models.
    kinds : tuple of {"crop", "roll", "fill", "half"}
        The shifts: another crop of the larger image; a roll; zeros that move in; or half a pixel,
        of the periodic image that is interpolated by its Fourier series.
    batch_size : int, default: 256
    repeats : int, default: 5
        Runs that are timed, after one that is not.
    seed : int, default: 0
        Of the random shifts.

    Returns
    -------
    pandas.DataFrame, or list of dict where pandas is not installed
        A row for each model:

        - ``model``;
        - ``accuracy``, of crops in the middle;
        - for each kind ``consistency_*`` and ``fidelity_*`` (joint), at pairs of random shifts of
          up to ``shifts`` pixels along both axes, whole ones or multiples of 1/2;
        - ``worst_*``, the share of images that are right at all of them;
        - ``flips_*``, how often the prediction changes from one shift to the next along rows
          and columns, 0 to ``shifts`` pixels in steps of a pixel, or half as far in steps of half
          a pixel;
        - ``parameters``, and ``macs``, multiply-accumulates for one image in millions, None where
          the model is no module;
        - ``milliseconds`` for one image in a batch, the median.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a model returns something else.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.metrics import compare
    >>> mean = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> images, labels = torch.rand(8, 3, 20, 20), torch.zeros(8, dtype=torch.long)
    >>> table = compare({"mean": mean}, images, labels, shifts=2)
    >>> row = table.iloc[0] if hasattr(table, "iloc") else table[0]
    >>> float(row["consistency_roll"])
    1.0
    """
    largest = as_count(shifts, "shifts")
    size = _crop_size(images, largest)
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r} in kinds; known: {', '.join(KINDS)}")
    if not isinstance(models, Mapping) or not models:
        raise TypeError(f"models must be a mapping of names to models, got {models!r}")
    generator = torch.Generator().manual_seed(seed)
    drawn = {kind: _draw(kind, draws, len(images), largest, generator) for kind in kinds}
    batch_size, repeats = as_count(batch_size, "batch_size"), as_count(repeats, "repeats")
    rows = [
        {"model": name}
        | _stability(model, images, labels, size, drawn, largest, batch_size)
        | _cost(model, images[:batch_size], size, repeats)
        for name, model in models.items()
    ]
    try:
        pandas: Any = importlib.import_module("pandas")
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


def _crop_size(images: Any, largest: int) -> tuple[int, int]:
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise TypeError("images must be a torch.Tensor of shape (N, C, H, W)")
    height, width = (side - 2 * largest for side in images.shape[-2:])
    if min(height, width) < 1:
        raise ValueError(
            f"images must be larger than 2 * shifts = {2 * largest} pixels, got "
            f"{images.shape[-2]} x {images.shape[-1]}"
        )
    return height, width


def _draw(kind: str, draws: int, count: int, largest: int, generator: torch.Generator) -> Tensor:
    parts = KINDS[kind][1]
    moves = random_shifts(draws, count, largest * parts, generator=generator)
    return moves / parts if parts > 1 else moves


def _stability(
    model: Model,
    images: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    drawn: dict[str, Tensor],
    largest: int,
    batch_size: int,
) -> dict[str, float]:
    middle = shifted_crops(images, size, [0])[0]
    nowhere = torch.zeros(2, len(images), 2, dtype=torch.int64)
    still = _outputs(model, middle, None, nowhere, "roll", batch_size)
    row = {"accuracy": float(worst_case_accuracy(still, labels))}
    for kind, moves in drawn.items():
        by, parts = KINDS[kind]
        given, window = (images, size) if by == "crop" else (middle, None)
        outputs = _outputs(model, given, window, moves, by, batch_size)
        row[f"consistency_{kind}"] = float(consistency(outputs))
        row[f"fidelity_{kind}"] = float(fidelity(outputs, labels).joint)
        row[f"worst_{kind}"] = float(worst_case_accuracy(outputs, labels))
        line = torch.arange(largest + 1) / parts if parts > 1 else torch.arange(largest + 1)
        flips = []
        for axis in (0, 1):
            path = torch.zeros(largest + 1, len(images), 2, dtype=line.dtype)
            path[..., axis] = line[:, None]
            flips.append(float(flip_rate(_outputs(model, given, window, path, by, batch_size))))
        row[f"flips_{kind}"] = sum(flips) / 2
    return row


def _outputs(
    model: Model,
    images: Tensor,
    size: tuple[int, int] | None,
    moves: Tensor,
    by: str,
    batch_size: int,
) -> Tensor:
    return torch.cat(
        [
            shifted_outputs(
                model, images[at : at + batch_size], size, moves[:, at : at + batch_size], by=by
            ).cpu()
            for at in range(0, len(images), batch_size)
        ],
        1,
    )


def _cost(model: Model, images: Tensor, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    from torch.utils.flop_counter import FlopCounterMode

    import dtwpt.engine.torch_flops  # noqa: F401 - counts our operators

    parameters = macs = None
    batch = shifted_crops(images, size, [0])[0]
    durations = []
    with evaluation(model), torch.no_grad():
        if isinstance(model, nn.Module):
            parameters = sum(weights.numel() for weights in model.parameters())
            with FlopCounterMode(display=False) as counter:
                model(batch[:1])
            macs = counter.get_total_flops() / 2e6
        for _ in range(repeats + 1):
            began = time.perf_counter()
            model(batch)
            if batch.device.type == "cuda":
                torch.cuda.synchronize(batch.device)
            durations.append(1000 * (time.perf_counter() - began) / len(batch))
    return {
        "parameters": parameters,
        "macs": macs,
        "milliseconds": sorted(durations[1:])[repeats // 2],
    }
