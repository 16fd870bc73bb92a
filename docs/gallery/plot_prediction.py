"""
Prediction against measurement
==============================

:func:`dtwpt.invariance.measure` has the columns of :func:`dtwpt.invariance.predict`, for images.
:func:`dtwpt.plot.prediction` draws one against the other: on the dashed line both agree.
"""

import numpy as np
from sklearn.datasets import load_sample_images

import dtwpt
import dtwpt.plot
from dtwpt.invariance import estimate_spectrum, measure, predict

photographs = [image.mean(axis=-1) for image in load_sample_images().images]
crops = [
    photograph[top : top + 200, left : left + 200]
    for photograph in photographs
    for top in (0, 200)
    for left in (0, 200, 400)
]
bank = dtwpt.PacketBank(2)
kept = bank.atoms()["gabor"]
predicted = predict(bank, spectrum=estimate_spectrum(np.stack(crops), reach=8))
measured = measure(crops, bank)
ax = dtwpt.plot.prediction(predicted[kept], measured[kept])
