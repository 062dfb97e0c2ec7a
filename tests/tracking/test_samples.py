"""Pictures of samples from the same latents over a training."""

import numpy as np
import pytest
import torch
from torch import nn

from spectral_lightning import Sampler, SpectralMonitor
from spectral_lightning.report import RunFiles
from spectral_lightning.spectra import SpectralHistory
from spectral_lightning.spectra.files import read_arrays
from spectral_lightning.tracking import Output
from spectral_lightning.tracking.results import Results
from spectral_lightning.tracking.timing import Cost
from tests.support.flat import flat_tracker
from tests.support.gaussian_images import images

SAMPLER = Sampler(num_steps=4)


class Scaled(nn.Module):
    """``D = gain z / (1 + sigma^2)``, or each sample's condition at every pixel."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.batches, self.broken = set(), False

    def denoise(self, z, sigma, level=None):
        self.batches.add(len(z))
        torch.rand(3)  # a draw that the training must not see
        if self.broken and len(z) == 3:
            raise FloatingPointError("no picture today")
        if level is not None:
            return level.to(z).reshape(-1, 1, 1, 1).expand_as(z)
        return self.gain * z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


def follow(path, steps=12, network=None, **options):
    network = network or Scaled()
    defaults = {"sampler": SAMPLER, "num_samples": 16, "per_decade": 4, "directory": str(path), "figures": False}
    settings = {"network": network, "data": images(32, 1, 4), "track_floor": False, **defaults, **options}
    with flat_tracker(SpectralMonitor, **settings) as found:
        for step in range(steps):
            network.gain.data.fill_(0.5 + 0.04 * step)
            found.step()
    return found


def stored(found):
    return read_arrays(found.session.results.files / "samples.npz")


def test_pictures_are_those_of_the_same_latents_twice_per_decade_and_at_the_end(tmp_path):
    torch.manual_seed(0)
    before, network = torch.get_rng_state(), Scaled()
    found = follow(tmp_path, network=network, samples=3, batch_size=2)
    assert torch.equal(before, torch.get_rng_state())
    assert 3 not in network.batches
    tables = stored(found)
    assert tables["step"].tolist() == [0, 1, 3, 10, 12]
    assert tables["pixels"].shape == (5, 3, 4, 4)
    assert tables["pixels"].dtype == np.uint8
    # The sampler is linear here: the sample is a multiple of the latent, grey is the mean of the data.
    latents = found.session._strip.rows.numpy()
    rows = images(32, 1, 4).reshape(32, -1).double().numpy()
    deviation = np.sqrt(np.mean((rows - rows.mean()) ** 2))
    for step, pixels in zip(tables["step"], tables["pixels"], strict=True):
        gain = 0.5 + 0.04 * max(step - 1, 0)
        factor = SAMPLER(lambda z, sigma, gain=gain: gain * z / (1 + sigma**2), np.array(SAMPLER.start))
        expected = 127.5 * (1 + (factor * latents - rows.mean()) / (3 * deviation))
        # One level for rounding in single precision.
        np.testing.assert_allclose(pixels.reshape(3, -1), expected.clip(0, 255), rtol=0, atol=1)
    assert tables["pixels"].std() > 10


def test_each_sample_has_its_row_of_the_condition(tmp_path):
    levels = torch.tensor([-0.6, 0.0, 0.6])
    pixels = stored(follow(tmp_path, 0, samples=4, condition=levels))["pixels"][0].astype(int)
    means = pixels.reshape(4, -1).mean(1)
    assert (pixels == means[:, None, None].astype(int)).all()
    assert means[0] == means[3] < means[1] < means[2]


def test_a_picture_that_fails_costs_no_row(tmp_path):
    network = Scaled()
    network.broken = True
    with pytest.warns(UserWarning, match="samples failed: FloatingPointError: no picture today"):
        found = follow(tmp_path, 2, network, samples=3, on_error="skip")
    assert found.history.steps.tolist() == [0, 1, 2]
    assert not (found.session.results.files / "samples.npz").exists()
    with pytest.raises(FloatingPointError):
        follow(tmp_path / "raises", 2, network, samples=3)


def test_wide_images_are_thinned(tmp_path):
    pixels = stored(follow(tmp_path, 0, samples=2, data=torch.randn(8, 1, 4, 130)))["pixels"]
    assert pixels.shape == (1, 2, 2, 44)


@pytest.mark.parametrize("options", [{"samples": 0}, {"data": torch.randn(32, 1, 16)}], ids=["unwanted", "no images"])
def test_nothing_is_kept_where_there_is_nothing_to_see(tmp_path, options):
    network = Scaled()
    network.denoise = lambda z, sigma: 0.5 * z / (1 + sigma.reshape(-1, *[1] * (z.ndim - 1)) ** 2)
    found = follow(tmp_path, 1, network, **options)
    assert not (found.session.results.files / "samples.npz").exists()


def test_a_resumed_run_drops_pictures_of_rows_that_it_does_not_have(tmp_path):
    found = follow(tmp_path, 3, samples=2)
    results = Results("again", found.basis, Output(str(tmp_path)), Cost())
    results.files = RunFiles(found.session.results.files.path)
    history = SpectralHistory({"target": [1.0], "fixed_point": [1.0]})
    for step in (0, 1, 2, 10, 32):  # without the end, step 3
        history.append(step=step, variance=[1.0])
    pixels = stored(found)["pixels"][0]
    for step in (32, 10):  # the second from an earlier checkpoint
        results.keep_samples(step, 255 - pixels, history)
        assert stored(found)["step"].tolist() == [0, 1, step]
    np.testing.assert_array_equal(stored(found)["pixels"][[0, 2]], [pixels, 255 - pixels])
    (results.files / "samples.npz").write_bytes(b"PK")
    results.keep_samples(32, pixels, history)
    assert stored(found)["step"].tolist() == [32]
