"""Attack networks that are more or less stable under shifts: is stability bought with robustness.

After V. Singla, S. Ge, R. Basri, D. Jacobs, "Shift Invariance Can Reduce Adversarial Robustness",
NeurIPS 2021. Four parts:

theorem  The margin of a linear classifier of all shifts is the gap of the means (dc_margin).
dots     A bright dot against a dark one, k x k pixels: a fully connected network, and a
         convolutional one that no roll changes. The smallest change that flips the class.
dial     Digits of 8 x 8 pixels: one layer of 8 x 8 kernels and a mean over positions. Circular
         padding by 0 (fully connected) to 7 pixels (invariant) is a dial of invariance.
stems    A small ResNet with a convolution, blur, APS, RMax or CMod first.
"""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare_downsampling import REACH, SIZE, SmallResNet, digits, make_circular, network, train
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.invariance import dc_margin
from dtwpt.metrics import consistency, flip_rate, random_shifts, shifted_crops, shifted_outputs
from dtwpt.nn import replace_stem

PARTS = ("theorem", "dots", "dial", "stems")
STEMS = ("conv", "blur", "aps", "rmax", "cmod")
PADDINGS = (0, 1, 3, 5, 7)
L2, LINF = (0.5, 1.0), (0.05, 0.1)


# Attacks ------------------------------------------------------------------------------------------


def gradient(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the loss by the images, and the logits."""
    x = x.detach().requires_grad_()
    logits = model(x)
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    return torch.autograd.grad(loss, x)[0], logits.detach()


def norms(x: Tensor) -> Tensor:
    lengths: Tensor = x.flatten(1).norm(dim=1)[:, None, None, None]
    return lengths


def fast_gradient(model: nn.Module, x: Tensor, labels: Tensor, size: float, norm: str) -> Tensor:
    """Return images after one step of a size (Goodfellow et al. 2015)."""
    slope = gradient(model, x, labels)[0]
    step = slope.sign() if norm == "linf" else slope / norms(slope).clamp(min=1e-12)
    return x + size * step


def smallest_change(
    model: nn.Module, x: Tensor, labels: Tensor, steps: int, rate: float = 0.05
) -> Tensor:
    """Return the norms of the smallest changes that were found to flip the class.

    Decoupled direction and norm (Rony et al. 2019): steps along the gradient, after each of which
    the norm is made smaller where the class is flipped and larger where it is not. 0 where the
    class is wrong to begin with, infinite where nothing was found.
    """
    change, size = torch.zeros_like(x), torch.ones_like(norms(x))
    best = torch.full_like(size, torch.inf)
    for k in range(steps):
        slope, logits = gradient(model, x + change, labels)
        flipped = (logits.argmax(1) != labels)[:, None, None, None]
        best = torch.where(flipped, torch.minimum(best, norms(change)), best)
        step = 0.01 + 0.99 * (1 + np.cos(np.pi * k / steps)) / 2
        change = change + step * slope / norms(slope).clamp(min=1e-12)
        size = size * torch.where(flipped, 1 - rate, 1 + rate)
        change = change * size / norms(change).clamp(min=1e-12)
    return best.flatten()


# Parts --------------------------------------------------------------------------------------------


def theorem(options: Namespace) -> list[dict[str, Any]]:
    rows = []
    for d in (8, 16, 32):
        rng = np.random.default_rng(d)
        a, b = rng.normal(size=(3, d)), rng.normal(size=(3, d)) + 1.5
        shifts = [np.concatenate([np.roll(x, k, 1) for k in range(d)]) for x in (a, b)]
        labels = np.repeat([0, 1], [len(part) for part in shifts])
        fitted = SVC(kernel="linear", C=1e4, tol=1e-6).fit(np.concatenate(shifts), labels)
        normal = fitted.coef_[0]
        rows.append(
            {
                "d": d,
                "dc_margin": dc_margin(a, b),
                "margin of the support vector machine": 2 / float(np.linalg.norm(normal)),
                "its normal, deviation from a constant": float(np.ptp(normal) / normal.mean()),
            }
        )
    return rows


def dots(options: Namespace) -> list[dict[str, Any]]:
    rows = []
    for k in (3, 5, 9):
        x = torch.zeros(2, 1, k, k)
        x[:, 0, k // 2, k // 2] = torch.tensor([1.0, -1.0])
        labels = torch.tensor([0, 1])
        torch.manual_seed(0)
        connected = nn.Sequential(nn.Flatten(), nn.Linear(k * k, 100), nn.ReLU(), nn.Linear(100, 2))
        convolution = nn.Conv2d(1, 100, k, padding=k // 2, padding_mode="circular")
        pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(100, 2))
        convolutional = nn.Sequential(convolution, nn.ReLU(), *pooled)
        row: dict[str, Any] = {"k": k, "1 / k": 1 / k}
        for name, model in (("connected", connected), ("convolutional", convolutional)):
            optimiser = torch.optim.SGD(model.parameters(), 1.0)
            schedule = torch.optim.lr_scheduler.MultiStepLR(
                optimiser, [options.steps // 3, 2 * options.steps // 3], 0.5
            )
            for _ in range(options.steps):
                loss: Any = functional.cross_entropy(model(x), labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            row[name] = float(smallest_change(model, x, labels, 3 * options.attack).mean())
        rows.append(row)
    return rows


class Dial(nn.Module):
    """Kernels as large as the image, circular padding, and the mean over positions."""

    def __init__(self, padding: int, channels: int, side: int = 8) -> None:
        super().__init__()
        self.edges = [padding // 2, padding - padding // 2] * 2
        self.conv = nn.Conv2d(1, channels, side)
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        y = self.conv(functional.pad(x, self.edges, mode="circular")).relu()
        logits: Tensor = self.linear(y.mean((-2, -1)))
        return logits


def dial(options: Namespace) -> list[dict[str, Any]]:
    images, classes = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y, first = torch.tensor(classes), len(images) * 2 // 3
    rows = []
    for padding in PADDINGS:
        for seed in options.seeds:
            torch.manual_seed(seed)
            model = Dial(padding, options.channels)
            steps = options.epochs * (first // 64)
            optimiser = torch.optim.Adam(model.parameters(), 3e-3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            for _ in range(options.epochs):
                order: Any = torch.randperm(first)[: first // 64 * 64]
                for chosen in order.split(64):
                    loss: Any = functional.cross_entropy(model(x[chosen]), y[chosen])
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    schedule.step()
            generator = torch.Generator().manual_seed(seed)
            shifts = random_shifts(4, len(x) - first, 4, generator=generator)
            rolled = shifted_outputs(model, x[first:], None, shifts, by="roll")
            row: dict[str, Any] = {"padding": padding, "seed": seed}
            row["consistency, rolls"] = float(consistency(rolled))
            rows.append(row | attacked(model, x[first:], y[first:], options))
    return rows


def stems(options: Namespace) -> list[dict[str, Any]]:
    rows = []
    for seed in options.seeds:
        given = digits(seed, options)
        # From 0 to 1, so that sizes of changes are those of the other part.
        given = given._replace(train=0.4 * given.train + 0.3, test=0.4 * given.test + 0.3)
        for stem in STEMS:
            torch.manual_seed(seed)
            if stem == "rmax":
                model = make_circular(replace_stem(SmallResNet(10), "rmax", mode="periodic"))
            else:
                method = stem if stem in ("blur", "aps") else "none"
                model = network(method, "cmod" if stem == "cmod" else "own", 10)
            train(model, given, options, seed, False)
            model.eval()
            path = [(0, right) for right in range(REACH + 1)]
            row: dict[str, Any] = {"stem": stem, "seed": seed}
            row["flips, crops"] = float(flip_rate(shifted_outputs(model, given.test, SIZE, path)))
            middle = shifted_crops(given.test, SIZE, [0])[0]
            rows.append(row | attacked(model, middle, given.test_labels, options))
    return rows


def attacked(model: nn.Module, x: Tensor, labels: Tensor, options: Namespace) -> dict[str, float]:
    """Return accuracies before and after one step, and the median smallest change."""
    model.eval()
    for weights in model.parameters():
        weights.requires_grad_(False)
    x, labels = x[: options.attacked], labels[: options.attacked]

    def accuracy(x: Tensor) -> float:
        with torch.no_grad():
            return float((model(x).argmax(1) == labels).float().mean())

    row = {"accuracy": accuracy(x)}
    for norm, sizes in (("l2", L2), ("linf", LINF)):
        for size in sizes:
            moved = fast_gradient(model, x, labels, size, norm)
            row[f"FGSM {norm} {size}"] = accuracy(moved)
    row["DDN, median"] = float(smallest_change(model, x, labels, options.attack).median())
    return row


# Report -------------------------------------------------------------------------------------------


def report(rows: list[dict[str, Any]], key: str) -> str:
    """Return means, and standard deviations over seeds."""
    columns = [name for name in rows[0] if name not in (key, "seed")]
    lines = [[key, *columns]]
    for value in dict.fromkeys(row[key] for row in rows):
        cells = []
        for name in columns:
            found = np.array([row[name] for row in rows if row[key] == value])
            spread = f" ± {found.std(ddof=1):.3f}" if len(found) > 1 else ""
            cells.append(f"{found.mean():.4g}" if not spread else f"{found.mean():.3f}{spread}")
        lines.append([str(value), *cells])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--steps", type=int, default=3000, help="of the training on dots (3000)")
    add("--epochs", type=int, default=8)
    add("--channels", type=int, default=200, help="of the network with the dial (200)")
    add("--attack", type=int, default=100, help="steps of the attack (100)")
    add("--attacked", type=int, default=100, help="images that are attacked (100)")
    add("--json", type=Path, metavar="FILE", help="write the results here too")
    add("--quick", action="store_true", help="a trial that learns little")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.epochs, options.attack = [0], 200, 1, 20
        options.channels, options.attacked = 20, 20
    options.test, options.batch, options.device = 200, 32, "cpu"
    keys = {"theorem": "d", "dots": "k", "dial": "padding", "stems": "stem"}
    parts = {"theorem": theorem, "dots": dots, "dial": dial, "stems": stems}
    results = {}
    for name in options.parts:
        results[name] = parts[name](options)
        print(f"\n{name}\n{report(results[name], keys[name])}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
