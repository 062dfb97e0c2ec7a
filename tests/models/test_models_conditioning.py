"""Networks conditioned on a class: what they are called with, what they learn, what is refused."""

import functools

import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import LogNormalNoise
from spectral_lightning.models import DiffusionModule, ResidualMLP


class Recorder(nn.Module):
    """Keeps the labels it was called with; predicts the label."""

    def __init__(self):
        super().__init__()
        self.labels = []

    def forward(self, x, noise, *label):
        self.labels.extend(label)
        return x * 0 + (label[0][:, None] if label else -1)


def conditional(num_classes=3, **options):
    return DiffusionModule(Recorder(), num_classes=num_classes, **options)


def small(**options):
    return DiffusionModule(functools.partial(ResidualMLP, width=32, num_blocks=1, embedding=16), shape=2, **options)


def two_gaussians(count, seed):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(2, (count,), generator=generator)
    return 0.3 * torch.randn(count, 2, generator=generator) + 2.0 * (2 * label[:, None] - 1), label


def test_a_label_shifts_the_prediction_to_its_class():
    torch.manual_seed(0)
    adam = functools.partial(torch.optim.Adam, lr=3e-3)
    module = small(num_classes=2, class_dropout=0.2, noise=LogNormalNoise(0.7, 0.8), optimizer=adam)
    optimizer = module.configure_optimizers()
    for step in range(150):
        optimizer.zero_grad()
        module.loss(two_gaussians(128, step)).backward()
        optimizer.step()
    z, sigma = 3.0 * torch.randn(200, 2, generator=torch.Generator().manual_seed(9)), torch.full((200,), 3.0)
    with torch.no_grad():
        low, high, free = (
            module.denoise(z, sigma, None if label is None else torch.full((200,), label)).mean(0)
            for label in (0, 1, None)
        )
    # Under so much noise the best prediction is close to the mean of the class, -2 or 2, and to 0 without a class
    assert (low < -1.2).all()
    assert (high > 1.2).all()
    assert (free.abs() < 0.6).all()


@pytest.mark.parametrize("label_dtype", [torch.int64, torch.int32, torch.uint8])
def test_labels_reach_the_network_as_they_are(label_dtype):
    module = conditional()
    label = torch.tensor([2, 0, 1, 1], dtype=label_dtype)
    module.loss([torch.zeros(4, 2), label, "more of the batch"])
    module.denoise(torch.zeros(4, 2), torch.ones(4), label)
    module.denoise(torch.zeros(4, 2), torch.ones(4))
    assert [seen.tolist() for seen in module.network.labels] == [[2, 0, 1, 1], [2, 0, 1, 1], [3, 3, 3, 3]]
    assert {seen.dtype for seen in module.network.labels} == {torch.int64}


def test_class_dropout_is_its_share():
    module = conditional(class_dropout=0.25)
    torch.manual_seed(0)
    module.loss((torch.zeros(20_000, 2), torch.arange(20_000) % 3))
    seen = module.network.labels[0]
    null = (seen == 3).double()
    assert abs(null.mean().item() - 0.25) < 4 * (0.25 * 0.75 / 20_000) ** 0.5  # four standard errors
    assert torch.equal(seen[seen != 3], (torch.arange(20_000) % 3)[seen != 3])


def test_without_dropout_the_random_numbers_are_those_of_an_unconditional_training():
    drawn = []
    for module, batch in [
        (DiffusionModule(Recorder()), torch.zeros(5, 2)),
        (conditional(), (torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64))),
    ]:
        torch.manual_seed(0)
        module.loss(batch)
        drawn.append(torch.rand(1))
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((), "A batch must be `.x, label.`"),
        (([0, 1, 2, 0],), "A batch must be `.x, label.`"),
        *(((labels,), "`label` must hold one") for labels in (torch.zeros(4), torch.zeros(3, dtype=torch.int64))),
        *(((torch.tensor([0, k, 1, 1]),), "`label` must hold integers from 0 to 2") for k in (3, -1)),
    ],
)
def test_batches_that_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        conditional().loss((torch.zeros(4, 2), *labels))


def test_labels_that_are_refused_by_the_denoiser():
    z, sigma = torch.zeros(2, 2), torch.ones(2)
    with pytest.raises(ValueError, match="`label` must hold integers from 0 to 3"):
        conditional().denoise(z, sigma, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="`label` must be None"):
        DiffusionModule(Recorder()).denoise(z, sigma, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "arguments",
    [
        *({"num_classes": n} for n in (0, -2)),
        *({"class_dropout": share, "num_classes": 3} for share in (1.0, -0.1)),
        {"class_dropout": 0.1},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        small(**arguments)
