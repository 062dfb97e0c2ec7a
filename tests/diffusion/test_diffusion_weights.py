"""Averages are found by what they are; a module holds one inside a context, and its own bits afterwards."""

from contextlib import contextmanager

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from spectral_lightning.diffusion.weights import (
    AveragedWeights,
    RawWeights,
    ScopedWeights,
    find_weights,
    holding,
    recognised,
)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.SiLU(), nn.Linear(4, 3))


class Owner(nn.Module):
    """Has more than the network that is averaged."""

    def __init__(self):
        super().__init__()
        self.encoder, self.net = nn.Linear(3, 3), network()

    def forward(self, x):
        return self.net(self.encoder(x))


def moved(module, steps=3):
    """Other parameters and other statistics, as after a step of training."""
    generator = torch.Generator().manual_seed(steps)
    with torch.no_grad():
        for tensor in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
            tensor.add_(torch.rand(tensor.shape, generator=generator))
    module[1].num_batches_tracked += 1


def with_parameters(mean, net):
    mean.update_parameters(net)


def with_network(mean, net):
    mean.update(net)


def alone(mean, net):
    mean.update()


TORCH, HALF = "torch.optim.swa_utils.AveragedModel", get_ema_avg_fn(0.5)
AVERAGES = {  # the class, its options, where it keeps the copy, how it is updated
    "torch": (TORCH, {"avg_fn": HALF}, "module", with_parameters),
    "buffers": (TORCH, {"avg_fn": HALF, "use_buffers": True}, "module", with_parameters),
    "timm_v2": ("timm.utils.ModelEmaV2", {"decay": 0.5}, "module", with_network),
    "timm_v3": ("timm.utils.ModelEmaV3", {"decay": 0.5}, "module", with_network),
    "ema_pytorch": ("ema_pytorch.EMA", {"beta": 0.5, "update_after_step": 0, "update_every": 1}, "ema_model", alone),
    "karras": ("ema_pytorch.post_hoc_ema.KarrasEMA", {"gamma": 5.0, "update_every": 1}, "ema_model", alone),
    "diffusers": (
        "diffusers.training_utils.EMAModel",
        {"decay": 0.5},
        None,
        lambda mean, net: mean.step(net.parameters()),
    ),
}


def names(*chosen):
    """Importing timm and diffusers takes ten seconds."""
    return [pytest.param(n, marks=[pytest.mark.slow] if n[:4] in ("timm", "diff") else []) for n in chosen]


def average_of(name, net, **more):
    """A library's average of a network, and how it is updated."""
    path, options, _, update = AVERAGES[name]
    library, _, kind = path.rpartition(".")
    averaged = net.parameters() if name == "diffusers" else net
    mean = getattr(pytest.importorskip(library), kind)(averaged, **options, **more)
    return mean, lambda: update(mean, net)


def applied(average, owner):
    return AveragedWeights(lambda: recognised(average), "average").applied(owner)


def values(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(first, second):
    assert list(first) == list(second)
    return all(torch.equal(first[name], second[name]) for name in first)


def trained(name, **more):
    """An owner whose network has an average three updates old, and is ahead of it."""
    owner = Owner()
    average, update = average_of(name, owner.net, **more)
    for step in range(3):
        moved(owner.net, step)
        update()
    moved(owner.net)
    return owner, average


@pytest.mark.parametrize("name", names("torch", "buffers", "timm_v2", "timm_v3", "ema_pytorch", "karras"))
def test_parameters_and_statistics_are_those_of_the_average(name):
    owner, average = trained(name)
    copy = getattr(average, AVERAGES[name][2])
    raw, mean, encoder = values(owner), values(copy), values(owner.encoder)
    assert not torch.equal(owner.net[0].weight, copy[0].weight)
    assert not torch.equal(owner.net[1].running_mean, copy[1].running_mean)
    with applied(average, owner):
        assert same(values(owner.net), mean)
        assert same(values(owner.encoder), encoder)
    assert same(values(owner), raw)
    assert same(values(copy), mean)


@pytest.mark.slow
@pytest.mark.parametrize("foreach", [False, True])
def test_a_list_of_averages_is_put_into_the_parameters_it_is_of(foreach):
    owner, average = trained("diffusers", foreach=foreach)
    raw, mean = values(owner), [p.clone() for p in average.shadow_params]
    assert not torch.equal(owner.net[0].weight, mean[0])
    with applied(average, owner):
        assert all(torch.equal(p, m) for p, m in zip(owner.net.parameters(), mean, strict=True))
        assert same(values(owner.encoder), {k.removeprefix("encoder."): v for k, v in raw.items() if "encoder" in k})
        assert torch.equal(owner.net[1].running_mean, raw["net.1.running_mean"])
    assert same(values(owner), raw)
    assert average.temp_stored_params is None


@pytest.mark.slow
def test_a_list_of_averages_of_the_trainable_parameters_only():
    owner = Owner()
    owner.net[0].requires_grad_(False)
    average = pytest.importorskip("diffusers.training_utils").EMAModel(
        p for p in owner.net.parameters() if p.requires_grad
    )
    average.step([p for p in owner.net.parameters() if p.requires_grad])
    average.shadow_params = [torch.full_like(p, 7.0) for p in average.shadow_params]
    with applied(average, owner):
        assert (owner.net[3].weight == 7).all()
        assert not (owner.net[0].weight == 7).any()


@pytest.mark.parametrize("name", names("torch", "ema_pytorch", "diffusers"))
def test_the_average_may_live_in_the_module(name):
    owner, average = trained(name)
    owner.average = average
    raw = values(owner.net)
    with applied(average, owner):
        assert not torch.equal(owner.net[0].weight, raw["0.weight"])
    assert same(values(owner.net), raw)


@pytest.mark.parametrize("name", names("torch", "ema_pytorch", "diffusers"))
def test_before_its_first_update_an_average_is_the_raw_weights(name):
    net = network()
    average, update = average_of(name, net)
    source = AveragedWeights(lambda: recognised(average), "average")
    moved(net)
    raw = values(net)
    assert source.describe() == "averaged weights of average, raw until its first update"
    with source.applied(net):
        assert same(values(net), raw)
    update()
    assert source.describe() == "averaged weights of average"


def test_an_average_made_with_its_first_update():
    net = network()
    average = pytest.importorskip("ema_pytorch").EMA(net, lazy_init_ema=True)
    found = recognised(average)
    assert not found.started
    assert found.pairs(net) == []
    average.update()
    assert found.started
    assert len(found.pairs(net)) == len(net.state_dict())


@pytest.mark.parametrize(
    "thing", [nn.Linear(1, 1), nn.DataParallel(nn.Linear(1, 1)), None, 3, "ema", {}, torch.zeros(2)]
)
def test_other_things_are_no_averages(thing):
    assert recognised(thing) is None


def test_attributes_made_up_on_the_fly_are_no_average():
    class Anything:
        def __getattr__(self, name):
            return lambda *args, **kwargs: None

    class Configured(nn.Module):
        """Raises other errors, as a diffusers model does for the names of a dictionary's methods."""

        def __getattr__(self, name):
            if name == "update":
                raise KeyError(name)
            return super().__getattr__(name)

    assert recognised(Anything()) is None
    assert recognised(Configured()) is None


@pytest.mark.parametrize("name", names("torch", "diffusers"))
@pytest.mark.parametrize("parts", [0, 2])
def test_an_average_of_no_part_or_of_two_alike_is_refused(name, parts):
    owner, average = trained(name)
    owner.other = network(1)
    module = owner if parts else nn.Linear(2, 2)
    with pytest.raises(ValueError, match=f"`weights` .* {parts} parts of the module"):
        AveragedWeights(lambda: recognised(average), "average").applied(module)


def test_tied_parameters_stay_tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.SiLU(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    average = AveragedModel(net)
    average.update_parameters(net)
    before = values(net)
    with torch.no_grad():
        average.module[0].weight.add_(1)
    with applied(average, net):
        assert torch.equal(net[2].weight, before["0.weight"] + 1)
        assert net[2].weight is net[0].weight
    assert same(values(net), before)


def test_all_is_put_back_when_an_exception_flies():
    owner, average = trained("torch")
    raw, inside = values(owner), []

    def fail():
        inside.append(values(owner))
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), applied(average, owner):
        fail()
    assert not same(inside[0], raw)
    assert same(values(owner), raw)


def test_all_is_put_back_when_a_copy_fails_half_way():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with pytest.raises(RuntimeError), holding([(first, torch.zeros(2)), (second, torch.zeros(3))]):
        pytest.fail("the body must not run")
    assert first.tolist() == second.tolist() == [1, 1]


def test_every_bit_comes_back():
    bits = torch.tensor([0x7FC00001, 0x7F800001, -0x80000000, 1, 0x3F800001], dtype=torch.int64).to(torch.int32)
    weight = nn.Parameter(bits.view(torch.float32).clone())  # NaN with a payload, minus zero, a subnormal
    with holding([(weight, torch.zeros(5))]):
        assert (weight == 0).all()
    assert torch.equal(weight.data.view(torch.int32), bits)


def test_an_average_of_another_precision_is_rounded():
    net = network().to(torch.bfloat16)
    average = AveragedModel(net)
    average.update_parameters(net)
    average.to(torch.float32)
    with torch.no_grad():
        average.module[0].weight.add_(1 / 3)
    with applied(average, net):
        assert torch.equal(net[0].weight, average.module[0].weight.to(torch.bfloat16))


def test_who_holds_a_parameter_keeps_it():
    owner, average = trained("torch")
    tensors = {name: (id(t), t.data_ptr()) for name, t in owner.state_dict(keep_vars=True).items()}
    with applied(average, owner):
        assert {name: (id(t), t.data_ptr()) for name, t in owner.state_dict(keep_vars=True).items()} == tensors
    assert {name: (id(t), t.data_ptr()) for name, t in owner.state_dict(keep_vars=True).items()} == tensors


def test_a_live_graph_does_not_notice():
    owner, average = trained("torch")
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.autograd.grad(owner(x).square().sum(), list(owner.parameters()))
    owner.net[1].reset_running_stats()
    loss = owner(x).square().sum()
    with applied(average, owner):
        pass
    got = torch.autograd.grad(loss, list(owner.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("compile_first", [True, False])
def test_a_compiled_network_is_not_compiled_again(compile_first):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    owner = Owner()
    if compile_first:
        owner.net = torch.compile(owner.net, backend=backend)
    average = AveragedModel(owner.net)
    average.update_parameters(owner.net)
    if not compile_first:
        owner.net = torch.compile(owner.net, backend=backend)
    owner.eval()
    average.eval()
    with torch.no_grad():
        average.module.get_parameter("_orig_mod.0.weight" if compile_first else "0.weight").add_(1)
        x = torch.ones(2, 3)
        raw = owner(x)
        compiled = len(graphs)
        with applied(average, owner):
            mean = owner(x)
        again = owner(x)
    assert compiled == len(graphs) == 1
    assert torch.equal(raw, again)
    assert not torch.equal(raw, mean)


def test_kept_raw_weights_until_they_are_released():
    net = network()
    source = RawWeights(["A", "B"])
    raw = values(net)
    source.keep(net)
    assert source.describe() == "raw weights, kept while A or B may replace them"
    assert not source.replaced(net)
    moved(net)
    replacement = values(net)
    source.keep(net)  # kept already: what the module holds now may not be raw
    assert source.replaced(net)
    with source.applied(net):
        assert same(values(net), raw)
    assert same(values(net), replacement)
    source.release()
    assert not source.replaced(net)
    with source.applied(net):
        assert same(values(net), replacement)


def test_nan_is_not_taken_for_replaced():
    net = network()
    net[0].weight.data.fill_(torch.nan)
    source = RawWeights(["A"])
    source.keep(net)
    assert not source.replaced(net)


def test_a_context_of_the_user():
    net = network()
    raw = values(net)

    @contextmanager
    def sloppy(module):
        assert module is net
        module[0].weight.data.fill_(2.0)
        module[1].running_mean.fill_(3.0)
        yield "ignored"

    source = ScopedWeights(sloppy, "the context of sloppy")
    assert source.describe() == "weights inside the context of sloppy"
    for _ in range(2):
        with source.applied(net):
            assert (net[0].weight == 2).all()
            assert (net[1].running_mean == 3).all()
        assert same(values(net), raw)
    with pytest.raises(TypeError, match="`weights`"):
        ScopedWeights(lambda module: module, "x").applied(net).__enter__()


# Which weights are measured: the averages that a module and a Trainer's callbacks keep.


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


def filled(net):
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
    average, keepers = filled(module.body), []
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
    module.mean = filled(module.body)
    return module, [EMAWeightAveraging()]


@pytest.mark.parametrize(
    ("kind", "make", "message"),
    [
        ("ema", lambda: (Module(), [EarlyStopping("x")]), r"`weights`.* module Module, callback EarlyStopping"),
        ("ema", lambda: (Latent(use_ema=False), []), "`weights`"),
        ("ema", several, r"`weights`.* callback EMAWeightAveraging, module\.mean"),
        ("ema", lambda: (Module(), [Holder(filled(Module(width=3).body))]), "0 parts of the module"),
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
