from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")  # no window, wherever the tests run

# The machines that run the tests are shared: a slow example says nothing about the code.
settings.register_profile(
    "dtwpt", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("dtwpt")
