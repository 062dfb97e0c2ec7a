"""A module holds the weights of an average inside a context, and its own to the bit afterwards."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from spectral_lightning.diffusion.weights import AveragedWeights, RawWeights, ScopedWeights, holding, recognised


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


def torch_average(net):
    mean = AveragedModel(net, avg_fn=get_ema_avg_fn(0.5))
    return mean, lambda: mean.update_parameters(net), mean.module


def torch_average_with_buffers(net):
    mean = AveragedModel(net, avg_fn=get_ema_avg_fn(0.5), use_buffers=True)
    return mean, lambda: mean.update_parameters(net), mean.module


def timm_v2(net):
    mean = pytest.importorskip("timm.utils").ModelEmaV2(net, decay=0.5)
    return mean, lambda: mean.update(net), mean.module


def timm_v3(net):
    mean = pytest.importorskip("timm.utils").ModelEmaV3(net, decay=0.5)
    return mean, lambda: mean.update(net), mean.module


def ema_pytorch(net):
    mean = pytest.importorskip("ema_pytorch").EMA(net, beta=0.5, update_after_step=0, update_every=1, min_value=0.5)
    return mean, mean.update, mean.ema_model


def karras_ema(net):
    library = pytest.importorskip("ema_pytorch.post_hoc_ema")
    mean = library.KarrasEMA(net, gamma=5.0, update_every=1)
    return mean, mean.update, mean.ema_model


def slow(make):
    """The import of the library takes ten seconds."""
    return pytest.param(make, marks=pytest.mark.slow)


MODULE_AVERAGES = [torch_average, torch_average_with_buffers, slow(timm_v2), slow(timm_v3), ema_pytorch, karras_ema]


def diffusers(net, **options):
    library = pytest.importorskip("diffusers.training_utils")
    mean = library.EMAModel(net.parameters(), decay=0.5, **options)
    return mean, lambda: mean.step(net.parameters()), None


def values(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(first, second):
    assert list(first) == list(second)
    return all(torch.equal(first[name], second[name]) for name in first)


def trained(make):
    """An owner whose network has an average three updates old, and is ahead of it."""
    owner = Owner()
    average, update, copy = make(owner.net)
    for step in range(3):
        moved(owner.net, step)
        update()
    moved(owner.net)
    return owner, average, copy


@pytest.mark.parametrize("make", MODULE_AVERAGES)
def test_parameters_and_statistics_are_those_of_the_average(make):
    owner, average, copy = trained(make)
    raw, mean, encoder = values(owner), values(copy), values(owner.encoder)
    assert not torch.equal(owner.net[0].weight, copy[0].weight)
    assert not torch.equal(owner.net[1].running_mean, copy[1].running_mean)
    with AveragedWeights(lambda: recognised(average), "average").applied(owner):
        assert same(values(owner.net), mean)
        assert same(values(owner.encoder), encoder)
    assert same(values(owner), raw)
    assert same(values(copy), mean)


@pytest.mark.slow
@pytest.mark.parametrize("foreach", [False, True])
def test_a_list_of_averages_is_put_into_the_parameters_it_is_of(foreach):
    owner, average, _ = trained(lambda net: diffusers(net, foreach=foreach))
    raw, mean = values(owner), [p.clone() for p in average.shadow_params]
    assert not torch.equal(owner.net[0].weight, mean[0])
    with AveragedWeights(lambda: recognised(average), "average").applied(owner):
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
    with AveragedWeights(lambda: recognised(average), "average").applied(owner):
        assert (owner.net[3].weight == 7).all()
        assert not (owner.net[0].weight == 7).any()


@pytest.mark.parametrize("make", [*MODULE_AVERAGES, slow(diffusers)])
def test_the_average_may_live_in_the_module(make):
    owner, average, _ = trained(make)
    owner.average = average
    raw = values(owner.net)
    with AveragedWeights(lambda: recognised(average), "average").applied(owner):
        assert not torch.equal(owner.net[0].weight, raw["0.weight"])
    assert same(values(owner.net), raw)


@pytest.mark.parametrize("make", [torch_average, ema_pytorch, slow(diffusers)])
def test_before_its_first_update_an_average_is_the_raw_weights(make):
    net = network()
    average, update, _ = make(net)
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


@pytest.mark.parametrize("make", [torch_average, slow(diffusers)])
@pytest.mark.parametrize("parts", [0, 2])
def test_an_average_of_no_part_or_of_two_alike_is_refused(make, parts):
    owner, average, _ = trained(make)
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
    with AveragedWeights(lambda: recognised(average), "average").applied(net):
        assert torch.equal(net[2].weight, before["0.weight"] + 1)
        assert net[2].weight is net[0].weight
    assert same(values(net), before)


def test_all_is_put_back_when_an_exception_flies():
    owner, average, _ = trained(torch_average)
    raw, inside = values(owner), []

    def fail():
        inside.append(values(owner))
        raise RuntimeError("boom")

    with (
        pytest.raises(RuntimeError, match="boom"),
        AveragedWeights(lambda: recognised(average), "average").applied(owner),
    ):
        fail()
    assert not same(inside[0], raw)
    assert same(values(owner), raw)


def test_all_is_put_back_when_a_copy_fails_half_way():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with pytest.raises(RuntimeError), holding([(first, torch.zeros(2)), (second, torch.zeros(3))]):
        pytest.fail("the body must not run")
    assert first.tolist() == second.tolist() == [1, 1]


def test_it_nests():
    owner, average, copy = trained(torch_average)
    raw, mean = values(owner), values(copy)
    source = AveragedWeights(lambda: recognised(average), "average")
    with source.applied(owner):
        with source.applied(owner):
            assert same(values(owner.net), mean)
        assert same(values(owner.net), mean)
    assert same(values(owner), raw)


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
    with AveragedWeights(lambda: recognised(average), "average").applied(net):
        assert torch.equal(net[0].weight, average.module[0].weight.to(torch.bfloat16))


def test_who_holds_a_parameter_keeps_it():
    owner, average, _ = trained(torch_average)
    tensors = {name: (id(t), t.data_ptr()) for name, t in owner.state_dict(keep_vars=True).items()}
    with AveragedWeights(lambda: recognised(average), "average").applied(owner):
        assert {name: (id(t), t.data_ptr()) for name, t in owner.state_dict(keep_vars=True).items()} == tensors
    assert {name: (id(t), t.data_ptr()) for name, t in owner.state_dict(keep_vars=True).items()} == tensors


def test_a_live_graph_does_not_notice():
    owner, average, _ = trained(torch_average)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.autograd.grad(owner(x).square().sum(), list(owner.parameters()))
    owner.net[1].reset_running_stats()
    loss = owner(x).square().sum()
    with AveragedWeights(lambda: recognised(average), "average").applied(owner):
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
        with AveragedWeights(lambda: recognised(average), "average").applied(owner):
            mean = owner(x)
        again = owner(x)
    assert compiled == len(graphs) == 1
    assert torch.equal(raw, again)
    assert not torch.equal(raw, mean)


def test_raw_weights_are_what_the_module_holds():
    net = network()
    source = RawWeights()
    raw = values(net)
    source.keep(net)
    assert source.describe() == "raw weights"
    moved(net)
    with source.applied(net):
        assert not same(values(net), raw)


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
    with pytest.raises(RuntimeError, match="boom"), source.applied(net):
        raise RuntimeError("boom")
    assert same(values(net), raw)


def test_a_callable_that_returns_no_context_is_refused():
    with pytest.raises(TypeError, match="`weights`"):
        ScopedWeights(lambda module: module, "x").applied(network()).__enter__()
    with ScopedWeights(lambda module: nullcontext(), "x").applied(network()):
        pass
