"""Gaussian images of known covariance, and a user's LightningModule, written without this package's classes."""

import lightning.pytorch as pl
import torch

SIDE = 8


def covariance(channels=1, side=SIDE):
    """Each pixel correlates with its neighbours as exp(-distance / 3)."""
    ticks = torch.arange(side, dtype=torch.float64)
    y, x = (grid.flatten() for grid in torch.meshgrid(ticks, ticks, indexing="ij"))
    distance = ((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2).sqrt()
    return torch.kron(torch.eye(channels, dtype=torch.float64), (-distance / 3).exp() * 0.25)


def images(count=64, channels=1, side=SIDE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.linalg.cholesky(covariance(channels, side))
    rows = torch.randn(count, len(root), generator=generator, dtype=torch.float64) @ root.T
    return rows.reshape(count, channels, side, side).float()


class UserModule(pl.LightningModule):
    """What the users' modules have in common: a loss of a batch and Adam."""

    def training_step(self, batch, batch_idx):
        return self.loss(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)
