"""A training loop that knows nothing of Lightning, and the same under accelerate on several processes; run as a script: OUT."""

import json
import os
import socket
import sys
from pathlib import Path

import torch
from torch import multiprocessing, nn

from spectral_lightning import Output, Sampler, Sampling, Schedule, SpectralMonitor

SAMPLING = Sampling(num_samples=32, sampler=Sampler(num_steps=4), batch_size=7)
SCHEDULE = Schedule(per_decade=4)
SIGMA_DATA = 0.7


class Network(nn.Module):
    """``D(z, sigma)`` by EDM's coefficients over a small perceptron."""

    sigma_data = SIGMA_DATA

    def __init__(self, dim=8, dropout=0.1):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dim + 1, 32), nn.SiLU(), nn.Dropout(dropout), nn.Linear(32, dim))

    def forward(self, z, sigma):
        s, d = sigma[:, None], self.sigma_data
        out = self.body(torch.cat([z / (s**2 + d**2).sqrt(), s.log() / 4], 1))
        return d**2 / (s**2 + d**2) * z + s * d / (s**2 + d**2).sqrt() * out


def examples(count=128, dim=8):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(0))
    return rows * torch.logspace(0.5, -1.5, dim)


def begin(rate=1e-2):
    """The same network and optimizer every time."""
    torch.manual_seed(1)
    network = Network()
    return network, torch.optim.Adam(network.parameters(), lr=rate)


def train(network, optimizer, steps, report=lambda: None, backward=lambda loss: loss.backward()):
    """So many updates on batches drawn from the global generator."""
    data = examples()
    for _ in range(steps):
        x, sigma = data[torch.randint(len(data), (16,))], torch.rand(16) + 0.1
        loss = (network(x + sigma[:, None] * torch.randn_like(x), sigma) - x).square().mean()
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
        report()


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def monitor(network, place, optimizer=None, **options):
    settings = {"sampling": SAMPLING, "schedule": SCHEDULE, "output": Output(str(place), figures=False), **options}
    return SpectralMonitor(network, examples(), "edm", optimizer, **settings)


def under_accelerate(rank, world, port, out):
    """One process of an accelerate training."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world
    plain, adam = begin()
    network, optimizer = accelerator.prepare(plain, adam)
    logged = []
    with monitor(network, out / str(world), optimizer, log=lambda values, step: logged.append(step)) as found:
        # Every rank draws the same batches, so that the mean of the gradients is that of one process.
        train(network, optimizer, 12, backward=accelerator.backward)
    assert bool(logged) == (rank == 0)
    assert not {"lightning", "pytorch_lightning"} & set(sys.modules)
    torch.save(weights(plain), out / f"weights-{world}-{rank}.pt")
    (out / f"steps-{world}-{rank}.json").write_text(json.dumps(found.history.steps.tolist()))
    accelerator.end_training()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for world in (1, 2):
        multiprocessing.start_processes(
            under_accelerate, (world, free_port(), Path(sys.argv[1])), nprocs=world, start_method="fork"
        )
