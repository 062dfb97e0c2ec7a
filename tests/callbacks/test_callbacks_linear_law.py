"""The linear denoiser of `configs/gaussian_linear.yaml` lies on its theory, and the test would notice if it did not."""

import math
from pathlib import Path

import numpy as np
import pytest

from spectral_lightning.cli import main
from spectral_lightning.prediction import compare
from spectral_lightning.report import latest_run
from spectral_lightning.spectra import SpectralHistory

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RATE, INIT, SIGMA_DATA, STEPS = 0.012, 0.1, 0.5, 18
P_MEAN, P_STD, WEIGHTED_RATE = -1.2, 1.2, 0.004


def density(sigma: float) -> float:
    """EDM's density of ln sigma, up to a constant."""
    return math.exp(-((math.log(sigma) - P_MEAN) ** 2) / (2 * P_STD**2))


def naive_variance(step: float, lam: np.ndarray, rate: float = RATE, often=lambda sigma: 1.0) -> np.ndarray:
    """Gradient descent on the expected loss of one mode, then Heun, written out from the formulas of the paper and EDM.

    ``dL/dW = 2 p weight c_out c_in (A (lambda + sigma^2) - lambda)`` with ``A = c_skip + c_out c_in W`` and p the density
    over its mean.
    """
    levels = [(80 ** (1 / 7) + i / (STEPS - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(STEPS)]
    gain, mean = {}, sum(map(often, levels)) / STEPS
    for sigma in levels:
        skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
        out = sigma * SIGMA_DATA / math.sqrt(sigma**2 + SIGMA_DATA**2)
        scale = 1 / math.sqrt(sigma**2 + SIGMA_DATA**2)
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        factor = 1 - rate * 2 * often(sigma) / mean * weight * (out * scale) ** 2 * (lam + sigma**2)
        optimum = lam / (lam + sigma**2)
        gain[sigma] = optimum + (skip + out * scale * INIT - optimum) * factor**step
    z = np.full_like(lam, 80.0)
    for i, sigma in enumerate(levels):
        following = levels[i + 1] if i + 1 < STEPS else 0.0
        slope = (1 - gain[sigma]) * z / sigma
        ahead = z + (following - sigma) * slope
        if following > 0:
            slope = (slope + (1 - gain[following]) * ahead / following) / 2
            ahead = z + (following - sigma) * slope
        z = ahead
    return z**2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("linear")
    main(
        [
            "fit",
            f"--config={ROOT / 'configs/gaussian_linear.yaml'}",
            "--trainer.accelerator=cpu",
            "--trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger",
            f"--trainer.logger.init_args.save_dir={out}",
        ]
    )
    files = latest_run(out)
    return files, SpectralHistory.load(files / "history.npz"), SpectralHistory.load(files / "prediction.npz")


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    """A smaller run with noise levels as often as EDM's density has it, asked for on the command line."""
    out = tmp_path_factory.mktemp("weighted")
    model = "--model.init_args"
    main(
        [
            "fit",
            f"--config={ROOT / 'configs/gaussian_linear.yaml'}",
            "--trainer.accelerator=cpu",
            "--trainer.max_steps=400",
            "--trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger",
            f"--trainer.logger.init_args.save_dir={out}",
            f"{model}.shape=[32]",
            f"{model}.noise=spectral_lightning.diffusion.LogNormalNoise",
            f"{model}.noise.init_args.mean={P_MEAN}",
            f"{model}.noise.init_args.std={P_STD}",
            f"{model}.optimizer.init_args.lr={WEIGHTED_RATE}",
            "--data.init_args.dim=32",
            "--data.init_args.num_samples=256",
        ]
    )
    files = latest_run(out)
    return files, SpectralHistory.load(files / "history.npz"), SpectralHistory.load(files / "prediction.npz")


def test_a_density_of_noise_levels_is_within_the_same_bounds(weighted):
    files, history, prediction = weighted
    naive = np.stack([naive_variance(step, history.target, WEIGHTED_RATE, density) for step in history.steps])
    np.testing.assert_allclose(history.variance, naive, rtol=2e-4)
    np.testing.assert_allclose(prediction.variance, naive, rtol=2e-5)
    overlay = files.read_json("overlay.json")
    assert "RelativeDensity(LogNormalNoise(mean=-1.2, std=1.2), 18 levels)" in overlay["theory"]
    assert overlay["goodness_of_fit"]["rms"] < 1e-4
    assert overlay["goodness_of_fit"]["baseline"] > 0.5
    without = np.stack([naive_variance(step, history.target, WEIGHTED_RATE) for step in history.steps])
    assert (np.abs(history.variance / without - 1).max(axis=0) > 0.02).sum() >= 16


def table(steps, lam, shift=1.0):
    return np.stack([naive_variance(step * shift, lam) for step in steps])


def test_every_mode_at_every_step_within_two_percent_of_the_discrete_theory(run):
    _, history, prediction = run
    naive = table(history.steps, history.target)
    assert history.variance.shape[0] > 50
    # The measurement has no sampling error (128 orthogonal latents in 64 dimensions), only single precision.
    np.testing.assert_allclose(history.variance, naive, rtol=2e-2)
    np.testing.assert_allclose(history.variance, naive, rtol=2e-4)
    np.testing.assert_allclose(prediction.variance, naive, rtol=2e-5)


def test_enough_points_on_the_steep_part(run):
    _, history, _ = run
    v0, v1 = history.variance[0], history.fixed_point
    share = np.log(history.variance / v0) / np.log(v1 / v0)
    steep = ((share > 0.1) & (share < 0.9)).sum(axis=0)
    assert (steep >= 5).sum() >= 30
    linear = (history.variance - v0) / (v1 - v0)
    assert (((linear > 0.1) & (linear < 0.9)).sum(axis=0) >= 5).sum() >= 30


@pytest.mark.parametrize("shift", [0.9, 1.1])
def test_a_shift_of_the_theory_by_ten_percent_is_noticed(run, shift):
    _, history, _ = run
    error = np.abs(history.variance / table(history.steps, history.target, shift) - 1)
    assert (error.max(axis=0) > 0.02).sum() >= 30


def test_exponents_agree(run):
    _, history, prediction = run
    result = compare(history, prediction)
    law, theory = result.measured_law("falling"), result.predicted_law("falling")
    assert law.determinable
    assert theory.count == law.count >= 30
    assert law.exponent == pytest.approx(theory.exponent, abs=0.02)


def test_the_run_says_that_nothing_was_fitted_and_every_assumption_met(run):
    files, _, _ = run
    overlay = files.read_json("overlay.json")
    assert overlay["departures"] == []
    assert overlay["scale"] == 1.0
    assert "nothing fitted" in overlay["clock"]
    assert overlay["goodness_of_fit"]["rms"] < 1e-3 < overlay["goodness_of_fit"]["baseline"]
