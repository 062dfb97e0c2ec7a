"""Raw or averaged weights, whatever callbacks do to the module, in whatever order, at any moment of a training."""

import re
from datetime import timedelta

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging

from spectral_lightning.diffusion.weights import find_weights
from spectral_lightning.spectra import SpectralHistory, SpectralProbe
from tests.support.tiny_training import SAMPLER, Body, OwnModule, examples, fit, loader, same, tracker, values

DECAY = 0.5
OTHERS = "test|predict|checkpoint|exception"
HOOKS = [hook for hook in dir(pl.Callback) if hook.startswith("on_") and not re.search(OTHERS, hook)]


class Looks(pl.Callback):
    """Looks at the module in every hook, through a source of weights of some kind."""

    def __init__(self, kind=None):
        self.kind, self.source, self.seen = kind, None, []

    def setup(self, trainer, pl_module, stage):
        if self.kind is not None:
            self.source = find_weights(self.kind, pl_module, trainer.callbacks)

    def look(self, hook, trainer, pl_module):
        if self.source is None:
            self.seen.append((hook, trainer.global_step, values(pl_module)))
            return
        if hook in ("on_validation_start", "on_train_epoch_end"):
            self.source.keep(pl_module)
        if hook == "on_train_batch_start":
            self.source.release()
        before = values(pl_module)
        with self.source.applied(pl_module):
            self.seen.append((hook, trainer.global_step, values(pl_module)))
        assert same(pl_module, before)

    @property
    def last(self):
        """What was seen last in each hook."""
        return {hook: seen for hook, _, seen in self.seen}


for _hook in HOOKS:
    setattr(Looks, _hook, lambda self, trainer, module, *args, _hook=_hook: self.look(_hook, trainer, module))


def train(path, callbacks, module=OwnModule, **options):
    """Two epochs of four updates, the second cut short, with validations before, within and after them."""
    torch.manual_seed(3)
    made = module(Body(norm=True))
    defaults = {"max_epochs": 3, "max_steps": 7, "limit_train_batches": 4}
    validation = {"val_check_interval": 2, "num_sanity_val_steps": 1}
    val = loader(examples(16, seed=9), shuffle=False)
    fit(path, callbacks, made, loader(), val, **{**defaults, **validation, **options})
    return made


def averages(raw, first=0):
    """The exponential average of the raw weights after every update, from its formula."""
    found, mean = {}, None
    for step in sorted(raw):
        if step > first and mean is None:
            mean = raw[step]
        elif step > first:
            mean = {k: (DECAY * mean[k] + (1 - DECAY) * raw[step][k]).to(raw[step][k].dtype) for k in mean}
        found[step] = raw[step] if mean is None else mean
    return found


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """What a training without any averaging holds in every hook."""
    looks = Looks()
    train(tmp_path_factory.mktemp("truth"), [looks])
    assert {hook for hook, _, _ in looks.seen} == set(HOOKS)
    return looks.seen


@pytest.fixture(scope="module")
def unwatched(tmp_path_factory):
    """The module and the average in the end, by the step at which averaging begins."""
    ends = {}
    for start in (None, 3):
        average = EMAWeightAveraging(decay=DECAY, update_starting_at_step=start)
        ends[start] = train(tmp_path_factory.mktemp("unwatched"), [average]), average._average_model
    return ends


@pytest.mark.parametrize("first", [True, False], ids=["looks first", "average first"])
@pytest.mark.parametrize("start", [None, 3])
def test_raw_and_averaged_weights_in_every_hook(truth, unwatched, first, start, tmp_path):
    looks, average = [Looks("raw"), Looks("ema")], EMAWeightAveraging(decay=DECAY, update_starting_at_step=start)
    module = train(tmp_path, [*looks, average] if first else [average, *looks])
    updated = averages({step: raw for hook, step, raw in truth if hook == "on_train_batch_end"}, start or 0)
    for raw, mean, (hook, step, wanted) in zip(looks[0].seen, looks[1].seen, truth, strict=True):
        assert raw[:2] == mean[:2] == (hook, step)
        assert same(raw[2], wanted), (hook, step)
        # Lightning updates the average in its own on_train_batch_end; before that in the list it is the last one.
        last = step - (hook == "on_train_batch_end" and first)
        assert same(mean[2], updated.get(last, wanted) if last > (start or 0) else wanted), (hook, step)
    # The average is what training leaves in the module.
    assert same(module, looks[1].seen[-1][2])
    assert not same(module, looks[0].seen[-1][2])
    # And looking changed no bit, whichever came first.
    assert same(unwatched[start][0], module)
    assert same(unwatched[start][1], average._average_model)


def early():
    return EarlyStopping("val/loss", patience=0, divergence_threshold=-1.0, check_on_train_epoch_end=True)


def stochastic():
    return StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)


CALLBACKS = {"early": lambda: [EMAWeightAveraging(decay=DECAY), early()], "stochastic": lambda: [stochastic()]}


@pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS)
def test_raw_weights_where_a_callback_ends_the_training(tmp_path, make):
    looks = Looks("raw")
    module = train(tmp_path, [*make(), looks], lambda body: OwnModule(), max_epochs=2, max_steps=-1)
    assert same(looks.last["on_train_batch_end"], looks.last["on_train_end"])
    assert not same(module, looks.last["on_train_end"])


def test_a_second_training_has_its_own_average(tmp_path):
    looks, average = Looks("ema"), WeightAveraging()
    train(tmp_path, [looks, average])
    train(tmp_path, [looks, average], max_steps=9)  # Lightning updates it from the first training's last step on only
    assert same(looks.seen[-1][2], average._average_model.module)


class Shadowed(OwnModule):
    """A user's module with diffusers' average of its network."""

    def __init__(self, body):
        super().__init__(body)
        self.ema = pytest.importorskip("diffusers.training_utils").EMAModel(self.body.parameters(), decay=DECAY)

    def on_train_batch_end(self, *args):
        self.ema.step(self.body.parameters())

    def on_validation_epoch_start(self):
        self.ema.store(self.body.parameters())
        self.ema.copy_to(self.body.parameters())

    def on_validation_epoch_end(self):
        self.ema.restore(self.body.parameters())


@pytest.mark.slow
def test_an_average_that_the_module_swaps_itself(truth, tmp_path):
    raw, mean = Looks("raw"), Looks("ema")
    module = train(tmp_path, [raw, mean], Shadowed)
    assert "module.ema" in mean.source.describe()
    for (hook, step, seen), (_, _, wanted) in zip(raw.seen, truth, strict=True):
        assert same(seen, wanted), (hook, step)
    names, (*_, (_, _, last)) = [name for name, _ in module.named_parameters()], mean.seen
    assert all(torch.equal(last[n], s) for n, s in zip(names, module.ema.shadow_params, strict=True))
    assert not same(last, raw.seen[-1][2])


# Rows of histories.


class Records(pl.Callback):
    """The raw weights after every update, seen where no callback can have replaced them."""

    def __init__(self):
        self.raw = {}

    def on_train_start(self, trainer, pl_module):
        self.raw[0] = values(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.raw[trainer.global_step] = values(pl_module)


def variances(own, weights):
    """What another probe measures of given weights."""
    module = OwnModule().eval()
    module.load_state_dict(weights)
    return SpectralProbe(own.basis, SAMPLER, 16).measure(module.denoise, 0)["variance"]


ENDS = {
    "in mid-epoch": {},
    "with an epoch": {"max_steps": -1, "max_epochs": 2, "limit_train_batches": 3},
    "within an accumulation": {"max_steps": 6, "accumulate_grad_batches": 3, "limit_train_batches": 8},
    "early": {"max_steps": 50, "limit_train_batches": 3},
    "out of time": {"max_steps": -1, "max_epochs": -1, "max_time": timedelta(seconds=0.4)},
}


@pytest.mark.parametrize("first", [True, False], ids=["trackers first", "average first"])
@pytest.mark.parametrize("end", ENDS)
def test_every_row_is_of_the_weights_that_were_asked_for(tmp_path, end, first):
    """With validations, before which the average is swapped in and after which it is swapped out."""
    average, records = EMAWeightAveraging(decay=DECAY), Records()
    raw, mean = tracker(name="raw"), tracker(name="mean", weights="ema")
    # The record is made behind the average in the list, which updates itself but does not touch the weights there.
    callbacks = [raw, mean, average, records] if first else [average, raw, mean, records]
    train(
        tmp_path, [*callbacks, *([early()] if end == "early" else [])], lambda body: OwnModule(rate=0.05), **ENDS[end]
    )
    assert raw.history.last_step == mean.history.last_step == max(records.raw)
    assert raw.session.probe.sampling_key == mean.session.probe.sampling_key  # yet no samples are shared
    means = averages(records.raw)
    for i, step in enumerate(raw.history.steps):
        np.testing.assert_allclose(raw.history.variance[i], variances(raw, records.raw[step]), rtol=1e-6)
        # Ahead of the average in the list, a tracker sees it before it is updated; after the last update it is whole.
        last = step - (first and step > 0 and not mean.history["final"][i])
        wanted = means[last] if last > 0 else records.raw[step]
        np.testing.assert_allclose(mean.history.variance[i], variances(mean, wanted), rtol=1e-5)
    assert not np.allclose(raw.history.variance[-1], mean.history.variance[-1], rtol=1e-3)
    said = [SpectralHistory.load(tmp_path / n / "history.npz").metadata["weights"] for n in ("raw", "mean")]
    assert said[0].startswith("raw weights")
    assert all("EMAWeightAveraging" in text for text in said)
