"""Importing is quick, quiet and light."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, get_args

import pytest

import dtwpt


def run(code: str) -> Any:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout)


def test_import_brings_in_no_optional_package() -> None:
    code = "import dtwpt, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in run(code)}
    assert not loaded & {"torch", "matplotlib", "sklearn", "click", "PIL", "pandas", "skimage"}


def test_numpy_calls_do_not_import_torch() -> None:
    code = (
        "import dtwpt, json, sys, numpy as np; x = np.ones((8, 8)); dtwpt.cmod2(x); dtwpt.rmax2(x);"
        "dtwpt.idtcwpt2(dtwpt.dtcwpt2(x)); print(json.dumps('torch' in sys.modules))"
    )
    assert run(code) is False


def test_public_names() -> None:
    """A name that leaves this list is a breaking change."""
    assert sorted(dtwpt.__all__) == [
        "PacketBank",
        "Wavelet",
        "__version__",
        "cmod",
        "cmod2",
        "dtcwpt",
        "dtcwpt2",
        "idtcwpt",
        "idtcwpt2",
        "rmax",
        "rmax2",
        "wavelets",
    ]
    for name in dtwpt.__all__:
        assert hasattr(dtwpt, name)


def test_submodules_are_there_after_import_and_come_when_used() -> None:
    code = (
        "import dtwpt, json, sys; before = 'dtwpt.plot' in sys.modules; dtwpt.plot.filters;"
        "print(json.dumps([before, dir(dtwpt)]))"
    )
    before, names = run(code)
    assert not before
    modules = {"extract", "features", "invariance", "metrics", "nn", "plot", "sklearn", "typing"}
    modules |= {"augment", "scenes"}
    assert set(names) == {*dtwpt.__all__, *modules}
    for name in modules:
        assert getattr(dtwpt, name).__name__ == f"dtwpt.{name}"
    with pytest.raises(AttributeError, match="module 'dtwpt' has no attribute 'colours'"):
        dtwpt.colours  # noqa: B018


def test_names_of_types_are_those_known() -> None:
    assert list(get_args(dtwpt.typing.WaveletName)) == dtwpt.wavelets()
    assert list(get_args(dtwpt.typing.Operator)) == list(dtwpt.features.OPERATORS)


def test_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dtwpt", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["dtwpt", dtwpt.__version__]
