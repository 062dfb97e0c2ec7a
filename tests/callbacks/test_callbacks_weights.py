"""Raw or averaged weights, whatever callbacks do to the module, in whatever order, at any moment of a training."""

from contextlib import contextmanager

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from spectral_lightning.diffusion.weights import find_weights
from tests.support.tiny_training import Body, OwnModule, examples, loader, trainer

DECAY = 0.5
HOOKS = [
    "on_fit_start",
    "on_sanity_check_start",
    "on_sanity_check_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
]


def values(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(first, second):
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


class Looks(pl.Callback):
    """Looks at the module in every hook, through a source of weights where there is one."""

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
        assert same(values(pl_module), before)


for _hook in HOOKS:
    setattr(Looks, _hook, lambda self, trainer, module, *args, _hook=_hook: self.look(_hook, trainer, module))


def train(path, callbacks, module=OwnModule, **options):
    """Two epochs of four updates, the second cut short, with validations before, within and after them."""
    pl.seed_everything(3)
    made = module(Body(norm=True))
    defaults = {
        "max_epochs": 3,
        "max_steps": 7,
        "limit_train_batches": 4,
        "val_check_interval": 2,
        "num_sanity_val_steps": 1,
    }
    run = trainer(path, callbacks, **{**defaults, **options})
    run.fit(made, loader(), loader(examples(16, seed=9), shuffle=False))
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
    return looks.seen


@pytest.mark.parametrize("first", [True, False], ids=["looks first", "average first"])
@pytest.mark.parametrize("start", [None, 3])
def test_raw_weights_in_every_hook(truth, first, start, tmp_path):
    looks, average = Looks("raw"), EMAWeightAveraging(decay=DECAY, update_starting_at_step=start)
    module = train(tmp_path, [looks, average] if first else [average, looks])
    assert [(hook, step) for hook, step, _ in looks.seen] == [(hook, step) for hook, step, _ in truth]
    assert {hook for hook, _, _ in truth} == set(HOOKS)
    for (hook, step, seen), (_, _, wanted) in zip(looks.seen, truth, strict=True):
        assert same(seen, wanted), (hook, step)
    assert not same(values(module), looks.seen[-1][2])  # the average is what training leaves in the module


@pytest.mark.parametrize("first", [True, False], ids=["looks first", "average first"])
@pytest.mark.parametrize("start", [None, 3])
def test_averaged_weights_in_every_hook(truth, first, start, tmp_path):
    looks, average = Looks("ema"), EMAWeightAveraging(decay=DECAY, update_starting_at_step=start)
    module = train(tmp_path, [looks, average] if first else [average, looks])
    updated = averages({step: raw for hook, step, raw in truth if hook == "on_train_batch_end"}, start or 0)
    for (hook, step, seen), (_, _, raw) in zip(looks.seen, truth, strict=True):
        # Lightning updates the average in its own on_train_batch_end; from the optimizer's step on to there, it is the last one.
        behind = hook == "on_train_batch_end" and first
        wanted = updated.get(step - behind, raw) if step - behind > (start or 0) else raw
        assert same(seen, wanted), (hook, step)
    assert same(values(module), looks.seen[-1][2])


@pytest.mark.parametrize("kind", ["raw", "ema"])
def test_looking_changes_no_bit(kind, tmp_path):
    quiet, watched = EMAWeightAveraging(decay=DECAY), EMAWeightAveraging(decay=DECAY)
    plain = train(tmp_path, [quiet])
    looks = Looks(kind)
    looked = train(tmp_path, [looks, watched])
    assert len(looks.seen) > 50
    assert same(values(plain), values(looked))
    assert same(values(quiet._average_model), values(watched._average_model))


def test_raw_weights_where_early_stopping_ends_the_training(tmp_path):
    looks = Looks("raw")
    stop = EarlyStopping("val/loss", patience=0, divergence_threshold=-1.0, check_on_train_epoch_end=True)
    module = train(tmp_path, [EMAWeightAveraging(decay=DECAY), looks, stop])
    ends = {hook: seen for hook, _, seen in looks.seen if hook in ("on_train_batch_end", "on_train_end")}
    assert same(ends["on_train_batch_end"], ends["on_train_end"])
    assert not same(values(module), ends["on_train_end"])


def test_raw_weights_where_stochastic_weight_averaging_ends_the_training(tmp_path):
    looks = Looks("raw")
    average = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    module = train(tmp_path, [average, looks], lambda body: OwnModule(), max_epochs=2, max_steps=-1)
    ends = {hook: seen for hook, _, seen in looks.seen if hook in ("on_train_batch_end", "on_train_end")}
    assert same(ends["on_train_batch_end"], ends["on_train_end"])
    assert not same(values(module), ends["on_train_end"])


def test_a_second_training_has_its_own_average(tmp_path):
    looks, average = Looks("ema"), WeightAveraging()
    train(tmp_path, [looks, average])
    train(tmp_path, [looks, average], max_steps=9)  # Lightning updates it from the first training's last step on only
    assert same(looks.seen[-1][2], values(average._average_model.module))


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
    assert mean.source.describe() == "averaged weights of module.ema"
    for (hook, step, seen), (_, _, wanted) in zip(raw.seen, truth, strict=True):
        assert same(seen, wanted), (hook, step)
    names = [name for name, _ in module.named_parameters()]
    last = mean.seen[-1][2]
    assert all(torch.equal(last[n], s) for n, s in zip(names, module.ema.shadow_params, strict=True))
    assert not same(last, raw.seen[-1][2])


class LitEma(nn.Module):
    """The average of latent-diffusion code, cut down: buffers, and a store that is never emptied."""

    def __init__(self, model):
        super().__init__()
        self.names = {name: name.replace(".", "") for name, _ in model.named_parameters()}
        for name, p in model.named_parameters():
            self.register_buffer(self.names[name], p.detach().clone())

    def forward(self, model):
        for name, p in model.named_parameters():
            getattr(self, self.names[name]).mul_(DECAY).add_(p.detach(), alpha=1 - DECAY)

    def copy_to(self, model):
        for name, p in model.named_parameters():
            p.data.copy_(getattr(self, self.names[name]).data)

    def store(self, parameters):
        self.collected = [p.clone() for p in parameters]

    def restore(self, parameters):
        for saved, p in zip(self.collected, parameters, strict=True):
            p.data.copy_(saved.data)


class Latent(OwnModule):
    def __init__(self, body, use_ema=True):
        super().__init__(body)
        self.use_ema, self.model_ema = use_ema, LitEma(body)

    @contextmanager
    def ema_scope(self, context=None):
        if self.use_ema:
            self.model_ema.store(self.body.parameters())
            self.model_ema.copy_to(self.body)
        try:
            yield None
        finally:
            if self.use_ema:
                self.model_ema.restore(self.body.parameters())

    def on_train_batch_end(self, *args):
        self.model_ema(self.body)


def test_the_scope_of_latent_diffusion_code(tmp_path):
    looks = Looks("ema")
    module = train(tmp_path, [looks], Latent)
    assert looks.source.describe() == "weights inside Latent.ema_scope()"
    last = looks.seen[-1][2]
    for name, key in module.model_ema.names.items():
        assert torch.equal(last[f"body.{name}"], getattr(module.model_ema, key))
    assert not torch.equal(last["body.layers.0.weight"], module.body.layers[0].weight)


def test_a_scope_that_is_switched_off_is_no_average():
    with pytest.raises(ValueError, match="`weights`"):
        find_weights("ema", Latent(Body(), use_ema=False))


def test_a_callable_is_called_with_the_module():
    module = Latent(Body())
    module.model_ema.layers0weight.fill_(4.0)
    source = find_weights(Latent.ema_scope, module)
    assert source.describe() == "weights inside the context of Latent.ema_scope"
    with source.applied(module):
        assert (module.body.layers[0].weight == 4).all()


class Holder(pl.Callback):
    """A user's callback with an average as an attribute."""

    def __init__(self, average):
        self.average = average


def updated(net):
    average = AveragedModel(net, avg_fn=get_ema_avg_fn(DECAY))
    average.update_parameters(net)
    with torch.no_grad():
        average.module.layers[0].weight.fill_(5.0)
    return average


@pytest.mark.parametrize("place", ["callback", "module", "both"])
def test_an_average_as_an_attribute(place):
    module = OwnModule()
    average, callbacks = updated(module.body), []
    if place != "callback":
        module.mean = average
    if place != "module":
        callbacks = [Holder(average)]
    source = find_weights("ema", module, callbacks)
    assert (
        source.describe() == f"averaged weights of {'module.mean' if place == 'module' else 'callback Holder.average'}"
    )
    with source.applied(module):
        assert (module.body.layers[0].weight == 5).all()


def test_no_average_says_where_it_looked():
    with pytest.raises(
        ValueError, match=r"got 'ema'\. Looked at module OwnModule, callback Looks, callback EarlyStopping\."
    ):
        find_weights("ema", OwnModule(), [Looks(), EarlyStopping("x")])


def test_several_averages_are_named():
    module = OwnModule()
    module.mean = updated(module.body)
    with pytest.raises(ValueError, match=r"found callback EMAWeightAveraging, module\.mean\."):
        find_weights("ema", module, [EMAWeightAveraging()])
    assert find_weights("raw", module, [EMAWeightAveraging()]).replaced_by == (
        "callback EMAWeightAveraging",
        "module.mean",
    )


def test_an_average_of_something_else_is_refused_at_once():
    with pytest.raises(ValueError, match="0 parts of the module"):
        find_weights("ema", OwnModule(), [Holder(updated(Body(width=3)))])


@pytest.mark.parametrize("kind", ["average", "", None, 3])
def test_another_kind_is_refused(kind):
    with pytest.raises(ValueError, match="`weights` must be one of 'raw', 'ema'"):
        find_weights(kind, OwnModule())


def test_without_any_average_nothing_is_copied():
    module = OwnModule()
    source = find_weights("raw", module, [Looks(), EarlyStopping("x")])
    source.keep(module)
    assert source.describe() == "raw weights"
    assert source._kept == {}
