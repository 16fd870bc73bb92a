"""
A classifier that survives a shift
==================================

Handwritten digits, moved by up to three pixels after training:
:class:`dtwpt.sklearn.PacketFeatures` against pixels, with the same classifier.
"""

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dtwpt.sklearn import PacketFeatures

digits = load_digits()
images = np.pad(digits.images, ((0, 0), (4, 4), (4, 4)))
train, test = slice(0, None, 2), slice(1, None, 2)


def scores(*steps):
    """Train once, and test on digits that are moved by 0 to 3 pixels."""
    model = make_pipeline(*steps, StandardScaler(), LogisticRegression(max_iter=1000))
    flat = (lambda x: x) if steps else (lambda x: x.reshape(len(x), -1))
    model.fit(flat(images[train]), digits.target[train])
    moved = [np.roll(images[test], pixels, axis=2) for pixels in range(4)]
    return [model.score(flat(each), digits.target[test]) for each in moved]


fig = Figure(figsize=(4.5, 3), layout="constrained")
ax = fig.add_subplot()
ax.plot(scores(PacketFeatures(pool=3)), "o-", label="packet features")
ax.plot(scores(), "s--", label="pixels")
ax.set(xlabel="shift (pixels)", ylabel="accuracy", xticks=range(4), ylim=(0, 1))
_ = ax.legend()
