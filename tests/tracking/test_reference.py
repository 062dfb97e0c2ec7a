"""The data a spectrum is computed from: their moments, as the network sees them, and what stays untouched."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from spectral_lightning import Sampler, SpectralMonitor
from tests.support.bare_loop import Network, examples
from tests.support.flat import flat_tracker


class Counting(Dataset):
    """Writes down what is read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 64

    def __getitem__(self, index):
        self.read.append(index)
        return examples(64)[index]


def variances(rows):
    """Eigenvalues of the covariance, the largest first."""
    return np.linalg.eigvalsh(np.cov(rows.double().numpy().T, bias=True))[::-1]


def looked_at(path, data, network=None, **options):
    """A monitor that has measured the untrained network."""
    defaults = {
        "denoiser": "edm",
        "num_samples": 16,
        "sampler": Sampler(num_steps=3),
        "directory": str(path),
        "figures": False,
    }
    network = Network() if network is None else network
    return flat_tracker(SpectralMonitor, network=network, data=data, **{**defaults, **options})


def test_the_moments_are_those_of_the_data_as_the_network_sees_them(tmp_path):
    rows = examples(64)
    # A loader that drops and repeats: the spectrum is that of the dataset.
    odd = DataLoader(TensorDataset(rows), sampler=[0, 0, 1, 2, 3, 3, 3, 3], batch_size=2)
    dictionaries = [{"label": torch.tensor(i), "image": x} for i, x in enumerate(rows)]
    for data, options in ((odd, {}), (DataLoader(dictionaries, batch_size=5), {"batch_key": "image"})):
        found = looked_at(tmp_path, data, **options)
        np.testing.assert_allclose(found.history.target, variances(rows), rtol=1e-9)
        np.testing.assert_allclose(found.basis.mean, rows.double().mean(0), rtol=1e-9, atol=1e-12)
    scaled = looked_at(tmp_path, rows, transform=lambda x: 2 * x)
    np.testing.assert_allclose(scaled.history.target, variances(2 * rows), rtol=1e-6)


class Latent(Network):
    """Has an encoder with dropout inside, half of it frozen."""

    def __init__(self):
        super().__init__()
        self.frozen, self.awake = nn.Dropout(0.5).eval(), nn.Dropout(0.5)
        self.calls = []

    def encode(self, x):
        self.calls.append((self.training, torch.is_grad_enabled()))
        return self.awake(self.frozen(3 * x))


@pytest.mark.parametrize("by_name", [True, False])
def test_the_encoder_of_latent_diffusion_runs_undisturbed_and_is_put_back(tmp_path, by_name):
    network = Latent()
    found = looked_at(tmp_path, examples(), network, transform="encode" if by_name else network.encode)
    np.testing.assert_allclose(found.history.target, variances(3 * examples()), rtol=1e-5)  # no dropout
    assert set(network.calls) == {(False, False)}
    assert [network.training, network.frozen.training, network.awake.training] == [True, False, True]


@pytest.mark.filterwarnings("ignore:.*cannot be read")
@pytest.mark.parametrize("damage", ["none", "gone", "broken"])
def test_a_resumed_run_reads_its_basis_and_not_its_data(tmp_path, damage):
    before = looked_at(tmp_path, Counting())
    before.close()
    basis, again = tmp_path / "spectral" / "basis.pt", Counting()
    if damage == "gone":
        basis.unlink()
    elif damage == "broken":
        basis.write_bytes(basis.read_bytes()[:100])
    network = Network()
    after = looked_at(tmp_path, again, network, name="other")
    again.read.clear()
    after.load_state_dict(before.state_dict())
    assert len(again.read) == (0 if damage == "none" else 64)
    assert torch.equal(after.basis.variance, before.basis.variance)
