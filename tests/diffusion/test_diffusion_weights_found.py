"""Which weights are measured: the averages that a module and a Trainer's callbacks keep, found by what they are."""

from contextlib import contextmanager

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from spectral_lightning.diffusion.weights import find_weights


class Module(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 3))


class Latent(Module):
    """As latent-diffusion code: a context in which the module holds its averages."""

    def __init__(self, use_ema=True):
        super().__init__()
        self.use_ema = use_ema

    @contextmanager
    def ema_scope(self):
        kept = self.body[0].weight.clone()
        self.body[0].weight.data.fill_(4.0)
        yield
        self.body[0].weight.data.copy_(kept)


class Holder:
    """A user's callback with an average as an attribute."""

    def __init__(self, average):
        self.average = average


def average_of(net):
    average = AveragedModel(net, avg_fn=get_ema_avg_fn(0.5))
    average.update_parameters(net)
    with torch.no_grad():
        average.module[0].weight.fill_(5.0)
    return average


@pytest.mark.parametrize("kind", ["ema", Latent.ema_scope])
def test_a_scope_is_entered(kind):
    module = Latent()
    source = find_weights(kind, module)
    assert "ema_scope" in source.describe()
    before = module.body[0].weight.clone()
    with source.applied(module):
        assert (module.body[0].weight == 4).all()
    assert torch.equal(module.body[0].weight, before)


@pytest.mark.parametrize("place", ["callback", "module", "both"])
def test_an_average_as_an_attribute(place):
    module = Module()
    average, keepers = average_of(module.body), []
    if place != "callback":
        module.mean = average
    if place != "module":
        keepers = [Holder(average)]
    source = find_weights("ema", module, keepers)
    assert ("module.mean" if place == "module" else "callback Holder.average") in source.describe()
    with source.applied(module):
        assert (module.body[0].weight == 5).all()


def several():
    module = Module()
    module.mean = average_of(module.body)
    return module, [EMAWeightAveraging()]


@pytest.mark.parametrize(
    ("kind", "make", "message"),
    [
        ("ema", lambda: (Module(), [EarlyStopping("x")]), r"`weights`.* module Module, callback EarlyStopping"),
        ("ema", lambda: (Latent(use_ema=False), []), "`weights`"),
        ("ema", several, r"`weights`.* callback EMAWeightAveraging, module\.mean"),
        ("ema", lambda: (Module(), [Holder(average_of(Module(width=3).body))]), "0 parts of the module"),
        ("average", lambda: (Module(), []), "`weights`"),
        (None, lambda: (Module(), []), "`weights`"),
    ],
)
def test_no_average_and_more_than_one_are_refused_at_once(kind, make, message):
    with pytest.raises(ValueError, match=message):
        find_weights(kind, *make())


def test_raw_weights_are_kept_aside_only_if_a_callback_may_replace_them():
    module, keepers = several()
    assert find_weights("raw", module, keepers).replaced_by == ("callback EMAWeightAveraging", "module.mean")
    source = find_weights("raw", module := Module(), [EarlyStopping("x")])
    source.keep(module)
    assert source.describe() == "raw weights"
    assert source._kept == {}
