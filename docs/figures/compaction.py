"""Share of the energy in the largest coefficients: DFT, DWT and DT-CWPT."""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import dtwpt

SIDE = 256
DEPTH = 3


def split(x, low, high):
    """Filter the last axis and subsample, periodically."""
    rolled = np.stack([np.roll(x, -k, -1) for k in range(len(low))], -1)[..., ::2, :]
    return rolled @ low, rolled @ high


def dwt(x, low, high):
    """Return all coefficients of an orthonormal wavelet transform."""
    found = []
    for _ in range(DEPTH):
        bands = []
        for half in split(x, low, high):
            bands += [band.T for band in split(half.T, low, high)]
        x = bands[0]
        found += [band.ravel() for band in bands[1:]]
    return np.concatenate([x.ravel(), *found])


def dft(x):
    c = np.fft.rfft2(x, norm="ortho")
    twice = np.full(c.shape, np.sqrt(2))  # those of the other half are their conjugates
    twice[:, [0, -1]] = 1
    return (twice * c).ravel()


def packets(x):
    return dtwpt.dtcwpt2(x, DEPTH, mode="periodic").ravel()


def shares(c, kept, complex_numbers):
    """Energy of the largest coefficients, of which a complex one counts as two numbers."""
    energy = np.sort(np.abs(c) ** 2)[::-1].cumsum()
    count = np.clip((kept * SIDE**2 / (2 if complex_numbers else 1)).astype(int), 1, len(energy))
    return 100 * energy[count - 1] / energy[-1]


def pictures():
    for name in ("camera", "brick", "grass", "astronaut", "coffee"):
        image = getattr(data, name)() / 255.0
        image = image @ [0.299, 0.587, 0.114] if image.ndim == 3 else image
        yield image[:SIDE, :SIDE] - image[:SIDE, :SIDE].mean()


def maps(image):
    """ReLU of the real parts of packets at every pixel, as a first layer has them."""
    c = dtwpt.dtcwpt2(image, 2, stride=1, mode="periodic").reshape(-1, SIDE, SIDE)
    for index in (5, 6, 9, 10):
        positive = np.maximum(c[index].real, 0)
        yield positive - positive.mean()


low, high = dtwpt.Wavelet("qshift_b").low[0], dtwpt.Wavelet("qshift_b").high[0]
kept = np.geomspace(0.001, 1, 60)
noise = np.random.default_rng(0).normal(size=(SIDE, SIDE))
for transform in (dft, lambda x: dwt(x, low, high), packets):
    assert np.isclose(np.sum(np.abs(transform(noise)) ** 2), np.sum(noise**2))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
images = list(pictures())
for axis, title, given in (
    (axes[0], "photographs", images),
    (axes[1], "feature maps after ReLU", [m for image in images for m in maps(image)]),
):
    for name, transform, two in (
        ("DFT", dft, True),
        ("DWT", lambda x: dwt(x, low, high), False),
        ("DT-CWPT", packets, True),
    ):
        curve = np.mean([shares(transform(x), kept, two) for x in given], 0)
        axis.semilogx(100 * kept, curve, label=name)
        print(f"{title}, {name}: {np.interp([0.01, 0.05, 0.1], kept, curve).round(1)}")
    axis.set_title(title)
    axis.set_xlabel("numbers kept, % of the pixels")
    axis.grid(alpha=0.3)
axes[0].set_ylabel("energy in them, %")
axes[0].legend()
