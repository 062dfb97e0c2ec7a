"""Sharded parameters: found however a library marks them, refused with the remedy, measured where somebody gathers them."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

from spectral_lightning.tracking.model import sharding_of
from tests.support.tiny_training import Body, OwnModule, loader, tracker, trainer


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """A gloo group of this process alone, which later tests do not see."""
    where = tmp_path_factory.mktemp("group") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{where}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def fully(module, mesh):
    fully_shard(module.body, mesh=mesh)


def by_rows(module, mesh):
    layer = module.body.layers[0]
    layer.weight = nn.Parameter(distribute_tensor(layer.weight.data, mesh, [Shard(0)]))


def flat(module, mesh):
    class FlatParameter(nn.Parameter):
        """Named as torch names it."""

    layer = module.body.layers[0]
    layer.weight = FlatParameter(layer.weight.data)


def marked_flat(module, mesh):
    module.body.layers[0].weight._is_flat_param = True


def deepspeed(module, mesh):
    """ZeRO 3 leaves parameters empty and gives them a number, from 0."""
    for number, parameter in enumerate(module.parameters()):
        parameter.ds_id = number


WAYS = {
    fully: "DTensor, as with FSDP2 or tensor parallelism",
    by_rows: "DTensor, as with FSDP2 or tensor parallelism",
    flat: "flat parameters, as with FSDP",
    marked_flat: "flat parameters, as with FSDP",
    deepspeed: "DeepSpeed ZeRO 3",
}


@pytest.fixture
def sharded(mesh, request):
    module = OwnModule(Body())
    request.param(module, mesh)
    return module, WAYS[request.param]


def test_whole_parameters_are_none_of_these():
    assert sharding_of(OwnModule()) is None
    assert sharding_of(nn.Identity()) is None


@pytest.mark.parametrize("sharded", WAYS, indirect=True)
def test_sharded_parameters_are_refused_before_anything_is_measured(sharded, tmp_path):
    module, kind = sharded
    assert sharding_of(module) == kind
    with pytest.raises(ValueError, match=rf"OwnModule are sharded \({kind}\): .* a `denoiser=` that gathers them"):
        trainer(tmp_path, [tracker()]).fit(module, loader())
    assert not (tmp_path / "spectral").exists()


def test_an_adapter_gathers_nothing_and_is_refused_too(mesh, tmp_path):
    module = OwnModule(Body())
    fully(module, mesh)
    with pytest.raises(ValueError, match="are sharded"):
        trainer(tmp_path, [tracker(denoiser="edm:body")]).fit(module, loader())


def gather(module, z, sigma):
    """A copy of the network with whole parameters."""
    body = Body()
    body.load_state_dict({name: p.full_tensor() for name, p in module.body.state_dict().items()})
    return body(z, sigma)


@pytest.mark.slow
@pytest.mark.parametrize("given", ["callable", "import path", "sampler"])
def test_a_gathering_denoiser_measures_what_whole_parameters_would(given, mesh, tmp_path, monkeypatch):
    histories = []
    for sharding in (False, True):
        torch.manual_seed(0)
        module, options = OwnModule(Body()), {}
        if sharding:
            fully(module, mesh)
            options = {"denoiser": lambda z, sigma, module=module: gather(module, z, sigma)}
        if sharding and given == "import path":
            users = types.ModuleType("users_code")
            users.gather = gather
            monkeypatch.setitem(sys.modules, "users_code", users)
            options = {"denoiser": "users_code:gather"}
        if given == "sampler":
            options = {"sampler": lambda module, z, whole=not sharding: one_step(module, z, whole)}
        own = tracker(track_gain=given != "sampler", **options)
        torch.manual_seed(1)
        trainer(tmp_path / str(sharding), [own]).fit(module, loader())
        histories.append(own.history)
    whole, pieces = histories
    assert whole.steps.tolist() == pieces.steps.tolist() == [0, 1, 2, 5, 10]
    assert np.ptp(whole.variance[:, 0]) > 0
    np.testing.assert_allclose(pieces.variance, whole.variance, rtol=1e-5)
    if given != "sampler":
        np.testing.assert_allclose(pieces["gain"], whole["gain"], rtol=0, atol=1e-5)


def one_step(module, z, whole):
    sigma = torch.full((len(z),), 3.0)
    return module.denoise(3 * z, sigma) if whole else gather(module, 3 * z, sigma)
