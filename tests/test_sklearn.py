"""The scikit-learn transformer: its own checks, and the features it must give."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import dtwpt
from dtwpt.sklearn import PacketFeatures
from dtwpt.typing import Operator

rng = np.random.default_rng(0)


@parametrize_with_checks([PacketFeatures(), PacketFeatures(depth=1, operator="rmax")])  # type: ignore[untyped-decorator]
def test_estimator_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("operator", ["cmod", "rmax"])
@pytest.mark.parametrize("pool", ["mean", "none", 2, (3, 1)])
def test_features_are_pooled_maps(operator: Operator, pool: Any) -> None:
    x = rng.normal(size=(70, 17, 26))
    features = PacketFeatures(operator=operator, pool=pool).fit_transform(x)
    maps = getattr(dtwpt, f"{operator}2")(x)
    if pool == "none":
        expected = maps.reshape(len(x), -1)
    else:
        rows, columns = {"mean": (1, 1), 2: (2, 2)}.get(pool, pool)
        row_cuts = np.arange(rows + 1) * 5 // rows
        column_cuts = np.arange(columns + 1) * 7 // columns
        cells = [
            maps[..., row_cuts[i] : row_cuts[i + 1], column_cuts[j] : column_cuts[j + 1]].mean(
                (-2, -1)
            )
            for i in range(rows)
            for j in range(columns)
        ]
        expected = np.stack(cells, axis=-1).reshape(len(x), -1)
    np.testing.assert_allclose(features, expected, rtol=1e-13)


@pytest.mark.parametrize("operator", ["cmod", "rmax"])
def test_statistics_and_depths_follow_each_other(operator: Operator) -> None:
    """Bit for bit what each of them alone is, under names that say which."""
    x = rng.normal(size=(6, 37, 42, 2)).astype(np.float32)
    together = PacketFeatures((2, 1), operator=operator, pool=["max", "std", "mean", (3, 2)]).fit(x)
    columns = dict(zip(together.get_feature_names_out(), together.transform(x).T, strict=True))
    assert len(columns) == 2 * (32 + 8) * 3 * 6
    for depth in (1, 2):
        for statistic in ("mean", "std", "max"):
            one = PacketFeatures(depth, operator=operator, pool=(statistic, (3, 2))).fit(x)
            for name, values in zip(one.get_feature_names_out(), one.transform(x).T, strict=True):
                channel, rest = name.split("_", 1)
                assert ("std" in rest, "max_y" in rest) == (statistic == "std", statistic == "max")
                np.testing.assert_array_equal(columns.pop(f"{channel}_d{depth}_{rest}"), values)
    assert not columns
    maps = getattr(dtwpt, f"{operator}2")(x[..., 0].astype(np.float64))
    deviations = PacketFeatures(operator=operator, pool="std").fit_transform(x[..., 0])
    variance = ((maps - maps.mean((-2, -1), keepdims=True)) ** 2).mean((-2, -1))
    np.testing.assert_allclose(deviations, np.sqrt(variance).reshape(6, -1), rtol=1e-4)


def test_names_tell_what_a_feature_responds_to() -> None:
    """A plane wave excites most the feature that is named after its frequency and direction."""
    y, x = np.mgrid[:64, :64]
    transformer = PacketFeatures(depth=3)
    atoms = dtwpt.PacketBank(3).atoms()
    gabor = atoms[~(atoms["boundary"] | atoms["lowpass"])]
    waves = np.cos(gabor["theta_y"][:, None, None] * y + gabor["theta_x"][:, None, None] * x)
    features = transformer.fit_transform(waves)
    names = transformer.get_feature_names_out()[features.argmax(1)]
    for name, atom in zip(names, gabor, strict=True):
        sign = "pos" if atom["sign"] > 0 else "neg"
        assert name == (
            f"cmod_{sign}_v{atom['row']}_h{atom['col']}_{atom['frequency']:.3f}rad"
            f"_{atom['orientation']:.1f}deg"
        )


@pytest.mark.parametrize("pool", ["mean", "none", 2])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_layouts_agree_and_names_are_unique(pool: Any, channels: tuple[int, ...]) -> None:
    x = rng.normal(size=(5, 16, 24, *channels)).astype(np.float32)
    stacked = PacketFeatures(pool=pool).fit(x)
    flat = PacketFeatures(pool=pool, image_shape=(16, 24, *channels)).fit(x.reshape(5, -1))
    features = stacked.transform(x)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(flat.transform(x.reshape(5, -1)), features)
    names = stacked.get_feature_names_out()
    assert len(set(names)) == features.shape[1]
    if channels:
        one = PacketFeatures(pool=pool).fit_transform(x[..., 2])
        of_channel = np.char.startswith(names.astype(str), "c2_")
        np.testing.assert_array_equal(features[:, of_channel], one)


def test_scaling_of_integer_images_matches_the_transforms() -> None:
    x = rng.integers(0, 256, (4, 16, 16), dtype=np.uint8)
    scaled = PacketFeatures().fit_transform((x / np.float32(255)).astype(np.float32))
    np.testing.assert_allclose(PacketFeatures().fit_transform(x), scaled, rtol=1e-6)


def test_scale_is_that_of_fit() -> None:
    """Pixels that have lost their dtype are the same pixels; what cannot be is warned of."""
    x = rng.integers(0, 256, (6, 64), dtype=np.uint8)
    transformer = PacketFeatures(depth=1, image_shape=(8, 8)).fit(x)
    expected = transformer.transform(x)
    for same in (x.tolist(), x.astype(int), x.astype(np.uint16)):
        np.testing.assert_allclose(transformer.transform(same), expected, rtol=1e-6)
    np.testing.assert_allclose(transformer.transform(x / 255), expected, rtol=1e-4)
    for other in (x.astype(float), x.astype(int) * 256):
        with pytest.warns(UserWarning, match=r"but fit saw integers that were divided by 255"):
            transformer.transform(other)
    numbers = PacketFeatures(depth=1, image_shape=(8, 8)).fit(x.astype(float))
    assert numbers.scale_ == 1
    np.testing.assert_allclose(numbers.transform(x), 255 * expected, rtol=1e-4)


def test_features_do_not_depend_on_company() -> None:
    x = rng.random((131, 20, 36)).astype(np.float32)
    for pool in ("mean", 2):
        transformer = PacketFeatures(pool=pool).fit(x)
        together = transformer.transform(x)
        for index in (0, 63, 64, 130):
            np.testing.assert_array_equal(
                transformer.transform(x[index : index + 1]), together[index : index + 1]
            )


def test_works_in_a_pipeline_and_a_grid_search() -> None:
    y, x = np.mgrid[:16, :16]
    labels = np.arange(40) % 2
    waves: NDArray[Any] = np.where(labels[:, None, None] == 1, np.cos(1.2 * x), np.cos(1.2 * y))
    images = waves + rng.normal(size=(40, 16, 16))
    pipeline = make_pipeline(PacketFeatures(), StandardScaler(), LogisticRegression())
    search = GridSearchCV(
        pipeline,
        {"packetfeatures__depth": [1, 2], "packetfeatures__operator": ["cmod", "rmax"]},
        cv=2,
    ).fit(images, labels)
    assert search.best_score_ > 0.8
    restored = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(restored.predict(images), search.predict(images))
    own = PacketFeatures(wavelet=dtwpt.Wavelet("qshift_a"))
    assert clone(own).wavelet == own.wavelet


@pytest.mark.parametrize(
    ("parameters", "shape", "message"),
    [
        ({"depth": 0}, (3, 8, 8), "depth must be"),
        ({"operator": "max"}, (3, 8, 8), "known operators: cmod, rmax"),
        ({"wavelet": "haar"}, (3, 8, 8), "known wavelets: qshift_06"),
        ({"mode": "wrap"}, (3, 8, 8), "known modes: symmetric"),
        ({"pool": "median"}, (3, 8, 8), "pool must be"),
        ({"pool": ("std", "std")}, (3, 8, 8), "pool must be"),
        ({"pool": ("std", 2, 2)}, (3, 8, 8), "pool must be"),
        ({"depth": (1, 1)}, (3, 8, 8), "depth must be one integer or several different ones"),
        ({"pool": 0}, (3, 8, 8), "pool must be"),
        ({"pool": 3}, (3, 8, 8), "more than the 2 rows"),
        ({"image_shape": (4, 5)}, (3, 21), "must have 20 features"),
        ({"image_shape": (4, 5.0)}, (3, 20), "image_shape must be"),
        ({"image_shape": 20}, (3, 20), "image_shape must be"),
        ({"image_shape": (4, 5)}, (3, 5, 4), r"image_shape is \(4, 5\)"),
        ({}, (3, 4, 4, 3, 2), "X must have shape"),
    ],
)
def test_bad_parameters_are_named(
    parameters: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PacketFeatures(**parameters).fit(np.ones(shape))


def test_bad_images_are_refused() -> None:
    x = np.ones((3, 8, 8))
    transformer = PacketFeatures().fit(x)
    with pytest.raises(ValueError, match=r"images of shape \(8, 8\), got \(8, 9\)"):
        transformer.transform(np.ones((3, 8, 9)))
    for bad in (np.nan, np.inf):
        x[1, 2, 3] = bad
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            transformer.transform(x)
