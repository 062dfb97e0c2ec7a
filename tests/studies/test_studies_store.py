"""Stored tables: small, and the measurement to single precision."""

import numpy as np
import pytest

from spectral_lightning.spectra import SpectralHistory
from studies.store import STORE, Stored, load, write_tables

TABLES = sorted(STORE.glob("*/*/*.npz"))


def measured(scale=1.0, rows=5, modes=7):
    rng = np.random.default_rng(0)
    static = {"target": rng.random(modes), "fixed_point": rng.random(modes), "initial_gain": rng.random((3, modes))}
    found = SpectralHistory({**static, "levels": [3.0, 2.0, 1.0]}, {"modes": ["a"] * modes})
    for step in range(rows):
        values = {name: scale * rng.random(modes) for name in ("variance", "standard_error", "mean_deviation")}
        found.append(step=step, num_samples=4, alignment=1.0, cumulative_learning_rate=0.1 * step, **values)
    return found


def test_a_table_is_read_back_to_single_precision(tmp_path):
    history, prediction = measured(), measured(rows=4)
    write_tables(tmp_path / "spectral.npz", history, prediction)
    found = Stored(tmp_path)
    for name in ("variance", "standard_error", "initial_gain"):
        np.testing.assert_allclose(found.history[name], history[name], rtol=6e-8)
    for name in ("step", "target", "fixed_point", "levels", "num_samples", "cumulative_learning_rate"):
        np.testing.assert_array_equal(found.history[name], history[name])
    assert "mean_deviation" not in found.history
    assert found.history.metadata == history.metadata
    assert found.prediction.steps.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.prediction.variance, prediction.variance, rtol=6e-8)
    np.testing.assert_array_equal(SpectralHistory.load(tmp_path / "spectral.npz").variance, found.history.variance)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_a_range_beyond_single_precision_stays_in_double(tmp_path, scale):
    write_tables(tmp_path / "spectral.npz", measured(scale))
    np.testing.assert_array_equal(Stored(tmp_path).history.variance, measured(scale).variance)
    assert Stored(tmp_path).prediction is None


def test_results_that_are_missing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a, b.*make results-gaussian"):
        load(tmp_path / "gaussian", ["a", "b"])


@pytest.mark.parametrize("study", sorted({file.parts[-3] for file in TABLES}))
def test_every_mode_and_row_has_its_variance_and_standard_error(study):
    for file in (one for one in TABLES if one.parts[-3] == study):
        with np.load(file) as arrays:
            shape = (len(arrays["step"]), len(arrays["target"]))
            for name in ("variance", "standard_error"):
                assert arrays[name].shape == shape
                assert np.isfinite(arrays[name]).all()
                assert arrays[name].dtype == np.float32
