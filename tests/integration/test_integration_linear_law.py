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

CONFIG = Path(__file__).parents[2] / "configs" / "gaussian_linear.yaml"
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


def table(history, *options, shift=1.0):
    return np.stack([naive_variance(step * shift, history.target, *options) for step in history.steps])


def trained(out, steps, *options):
    """The run, its measurement and its prediction."""
    logger = ["--trainer.logger.class_path=lightning.pytorch.loggers.CSVLogger", f"--trainer.max_steps={steps}"]
    place = ["--trainer.accelerator=cpu", f"--trainer.logger.init_args.save_dir={out}"]
    main(["fit", f"--config={CONFIG}", *logger, *place, *options])
    files = latest_run(out)
    return files, *(SpectralHistory.load(files / name) for name in ("history.npz", "prediction.npz"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """All that is learnt is learnt by step 1000 of 4000."""
    return trained(tmp_path_factory.mktemp("linear"), 1000)


def test_every_mode_at_every_step_lies_on_the_discrete_theory(run):
    files, history, prediction = run
    assert len(history) > 50
    # The measurement has no sampling error (128 orthogonal latents in 64 dimensions), only single precision.
    np.testing.assert_allclose(history.variance, table(history), rtol=2e-4)
    np.testing.assert_allclose(prediction.variance, table(history), rtol=2e-5)
    overlay = files.read_json("overlay.json")
    assert (overlay["departures"], overlay["scale"]) == ([], 1.0)
    assert "nothing fitted" in overlay["clock"]
    assert overlay["goodness_of_fit"]["rms"] < 1e-3 < overlay["goodness_of_fit"]["baseline"]


def test_enough_points_on_the_steep_part(run):
    _, history, _ = run
    v0, v1 = history.variance[0], history.fixed_point
    for share in (np.log(history.variance / v0) / np.log(v1 / v0), (history.variance - v0) / (v1 - v0)):
        assert (((share > 0.1) & (share < 0.9)).sum(axis=0) >= 5).sum() >= 30


@pytest.mark.parametrize("shift", [0.9, 1.1])
def test_a_shift_of_the_theory_by_ten_percent_is_noticed(run, shift):
    error = np.abs(run[1].variance / table(run[1], shift=shift) - 1)
    assert (error.max(axis=0) > 0.02).sum() >= 30


def test_exponents_agree(run):
    _, history, prediction = run
    result = compare(history, prediction)
    law, theory = result.measured_law("falling"), result.predicted_law("falling")
    assert law.determinable
    assert theory.count == law.count >= 30
    assert law.exponent == pytest.approx(theory.exponent, abs=0.02)


def test_a_density_of_noise_levels_is_within_the_same_bounds(tmp_path):
    """A smaller run with noise levels as often as EDM's density has it, asked for on the command line."""
    noise = {"": "spectral_lightning.diffusion.LogNormalNoise", ".init_args.mean": P_MEAN, ".init_args.std": P_STD}
    model = [f"--model.init_args.noise{key}={value}" for key, value in noise.items()]
    model += ["--model.init_args.shape=[32]", f"--model.init_args.optimizer.init_args.lr={WEIGHTED_RATE}"]
    data = ["--data.init_args.dim=32", "--data.init_args.num_samples=256"]
    files, history, prediction = trained(tmp_path, 400, *model, *data)
    naive = table(history, WEIGHTED_RATE, density)
    np.testing.assert_allclose(history.variance, naive, rtol=2e-4)
    np.testing.assert_allclose(prediction.variance, naive, rtol=2e-5)
    overlay = files.read_json("overlay.json")
    assert "LogNormalNoise(mean=-1.2, std=1.2)" in overlay["theory"]
    assert overlay["goodness_of_fit"]["rms"] < 1e-4
    assert overlay["goodness_of_fit"]["baseline"] > 0.5
    without = table(history, WEIGHTED_RATE)
    assert (np.abs(history.variance / without - 1).max(axis=0) > 0.02).sum() >= 16
