from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")  # no window, wherever the tests run
# Before torch is imported. A compiler of one thread needs no processes that import torch again.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores: threads that wait for each other beside them cost a multiple.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The machines that run the tests are shared: a slow example says nothing about the code.
settings.register_profile(
    "dtwpt", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("dtwpt")


# Files that take longest, for --dist loadfile to begin with, so that none is left to one worker.
_LONGEST = ("ray", "tracing", "invariance", "tiles", "store", "surgery", "cli", "gpu_kernels")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}": place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def _let_torchvision_import() -> None:
    """Declare operators of torchvision where its own library does not load.

    That library fits one build of torch only. Networks do not need its operators, but torchvision
    expects them to be declared when it is imported.
    """
    torchvision = find_spec("torchvision")
    if find_spec("torch") is None or torchvision is None:
        return
    import torch

    for folder in torchvision.submodule_search_locations or ():
        for library in Path(folder).glob("_C.*"):
            try:
                torch.ops.load_library(library)  # type: ignore[no-untyped-call]
            except OSError:
                continue
            return
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )


_let_torchvision_import()
