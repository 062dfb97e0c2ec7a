"""The passes of a training, as published by a module or caught from a network."""

import copy
import pickle

import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import Adapter, BoundDenoiser, NetworkPasses, listen
from spectral_lightning.models import DiffusionModule, ResidualMLP


class Keeps:
    """Looks at every pass but the third."""

    def __init__(self):
        self.count, self.passes = 0, []

    def due(self):
        self.count += 1
        return self.count != 3

    def add(self, *parts):
        self.passes.append(parts)


class Halves(nn.Linear):
    """A network in the convention "edm"."""

    def __init__(self):
        super().__init__(3, 3)

    def forward(self, z, sigma):
        return super().forward(z / (1 + sigma[:, None]))


def test_a_module_publishes_what_its_loss_is_made_of():
    module, kept = DiffusionModule(ResidualMLP([4], 8, 1, 4)), Keeps()
    end = listen(module, kept)
    clean = torch.randn(6, 4)
    loss = module.loss(clean)
    ((x, z, sigma, out),) = kept.passes
    assert torch.equal(x, clean)
    weight = module.preconditioning.loss_weight(sigma)
    torch.testing.assert_close((weight * (out - x).square().mean(1)).mean(), loss)
    torch.testing.assert_close(module.denoise(z, sigma), out)
    copy.deepcopy(module).loss(clean)  # copies are not listened to
    module.eval().loss(clean)  # nor is validation
    assert kept.count == 1
    module.train()
    end()
    end()
    module.loss(clean)
    assert kept.count == 1


def test_a_hook_takes_the_first_pass_of_each_batch():
    network, kept = Halves(), Keeps()
    found = NetworkPasses(BoundDenoiser(Adapter("edm", ""), network), kept)
    for i in range(4):
        x, sigma = torch.randn(5, 3), torch.rand(5) + 0.1
        z = x + sigma[:, None] * torch.randn(5, 3)
        with torch.no_grad():
            network(0 * z, sigma)
        out = network(z, sigma)
        network(2 * z, sigma=sigma)
        network.eval()(0 * z, sigma)
        network.train()
        found.saw(x)
        assert len(kept.passes) == kept.count - (i >= 2)
        if i != 2:
            assert all(torch.equal(a, b) for a, b in zip(kept.passes[-1], (x, z, sigma, out), strict=True))
            assert not kept.passes[-1][3].requires_grad
    assert kept.count == 4
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        twin(z, sigma)
    found.saw(x)
    found.end()
    network(z, sigma)
    found.saw(x)
    assert kept.count == 4


def test_what_cannot_be_caught_says_so():
    class Owner(nn.Module):
        def call(self, z, sigma):
            return z

    with pytest.raises(ValueError, match="must be a module"):
        NetworkPasses(BoundDenoiser(Adapter("edm", "call"), Owner()), Keeps())
    compiled = Halves()
    compiled.compile(backend="eager")
    with pytest.raises(ValueError, match="must not be compiled"):
        NetworkPasses(BoundDenoiser(Adapter("edm", ""), compiled), Keeps())
    network = Halves()
    found = NetworkPasses(BoundDenoiser(Adapter("edm", ""), network), Keeps())
    network(torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(ValueError, match="must have the shape"):
        found.saw(torch.zeros(3, 3))
    other = NetworkPasses(BoundDenoiser(Adapter("diffusers-epsilon", "", "linear"), nn.Flatten()), Keeps())
    other.denoiser.network(torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match="input and time"):
        other.saw(torch.zeros(2, 3, 1))
