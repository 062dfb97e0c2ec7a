"""Evaluating a denoiser without a trace."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from spectral_lightning.diffusion import undisturbed


def network():
    net = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    )
    net.train()
    net[1].eval()  # a frozen normalisation inside a training network
    net[3][1].eval()
    return net


def modes(net):
    return {name: module.training for name, module in net.named_modules()}


def states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def draw_everywhere():
    return random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002


def same(a, b):
    return a[0] == b[0] and str(a[1]) == str(b[1]) and np.array_equal(a[1][1], b[1][1]) and torch.equal(a[2], b[2])


def test_buffers_of_batch_norm_stay():
    net = network()
    net[1].train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with undisturbed(net):
        net(torch.randn(50, 3) + 7)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    net(torch.randn(50, 3) + 7)  # outside, they do move: the test can fail
    assert not torch.equal(net[1].running_mean, before["1.running_mean"])


def test_autocast_is_off_inside_and_back_after():
    net = nn.Linear(3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(torch.randn(2, 3)).dtype == torch.bfloat16
        with undisturbed(net):
            assert net(torch.randn(2, 3)).dtype == torch.float32
        assert net(torch.randn(2, 3)).dtype == torch.bfloat16


def test_all_is_put_back_when_an_exception_flies():
    net, before = network(), states()
    before_modes = modes(net)
    assert set(before_modes.values()) == {True, False}

    def fail():
        draw_everywhere()
        assert not same(states(), before)
        assert not any(modes(net).values())
        assert not torch.is_grad_enabled()
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), undisturbed(net):
        fail()
    assert same(states(), before)
    assert modes(net) == before_modes
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_without_a_module_modes_are_left_alone():
    net = network()
    before = modes(net)
    with undisturbed():
        assert modes(net) == before
