"""The monitor in loops of all kinds: the same numbers, the same bits, the same files as under Lightning."""

import copy as copying
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from spectral_lightning import Output, PCABasis, SpectralHistory, SpectralMonitor, SpectralProbe
from spectral_lightning.diffusion import Adapter
from spectral_lightning.tracking import Fitter, Overlay, Sampling, Schedule
from spectral_lightning.tracking.observers import FloorFigure, Forecaster
from tests.support.bare_loop import SAMPLING, begin, examples, monitor, train, weights

ROOT = Path(__file__).parents[2]
STEPS = 12


@pytest.fixture(scope="module")
def bare():
    """The weights of the loop without a monitor."""
    network, optimizer = begin()
    train(network, optimizer, STEPS)
    return weights(network)


@pytest.fixture(scope="module", params=["hooks", "by hand"])
def followed(request, tmp_path_factory):
    """A monitor that has followed the loop, the network, and the weights at every step."""
    network, optimizer = begin()
    hooks = request.param == "hooks"
    place = tmp_path_factory.mktemp("followed")
    found = monitor(network, place, optimizer if hooks else None, log=lambda values, step: None)
    seen = [weights(network)]

    def report():
        seen.append(weights(network))
        if not hooks:
            found.step()

    train(network, optimizer, STEPS, report)
    found.close()
    return found, network, seen


def test_training_is_the_same_to_the_bit(followed, bare):
    assert torch.equal(followed[2][-1], bare)


def test_every_row_is_that_of_a_probe_on_the_weights_of_its_step(followed):
    found, network, seen = followed
    assert found.history.steps.tolist() == [0, 1, 2, 3, 6, 10, 12]
    rows = examples().double()
    basis = PCABasis.from_moments(rows.mean(0), torch.cov(rows.T, correction=0))
    probe = SpectralProbe(basis, SAMPLING.sampler, SAMPLING.num_samples, sample_batch_size=SAMPLING.batch_size)
    network.eval()
    for step, variance in zip(found.history.steps, found.history.variance, strict=True):
        torch.nn.utils.vector_to_parameters(seen[step], network.parameters())
        np.testing.assert_allclose(variance, probe.measure(network, 0)["variance"], rtol=1e-5)


def test_files_and_prediction_are_those_of_a_tracker(followed):
    found = followed[0]
    files = found.session.results.files
    assert SpectralHistory.load(files / "history.npz").steps.tolist() == found.history.steps.tolist()
    overlay = files.read_json("overlay.json")
    assert "sigma_data=0.7" in overlay["theory"]  # the network's own
    assert any("derived" in text for text in overlay["departures"])
    assert files.read_json("emergence.json")["criterion"] == "geometric"
    assert found.session.prediction is not None


def test_without_an_optimizer_no_learning_rate_is_claimed(tmp_path):
    network, optimizer = begin()
    with monitor(network, tmp_path / "a") as by_hand:
        train(network, optimizer, 3, by_hand.step)
    assert "cumulative_learning_rate" not in by_hand.history
    network, optimizer = begin()
    with monitor(network, tmp_path / "b", optimizer) as hooked:
        train(network, optimizer, 3)
    np.testing.assert_allclose(hooked.history["cumulative_learning_rate"], 1e-2 * hooked.history.steps)


def test_what_is_logged_is_the_history(tmp_path):
    network, optimizer = begin()
    logged = []
    writer = SummaryWriter(str(tmp_path / "tb"))
    found = monitor(network, tmp_path, optimizer, log=lambda values, step: logged.append((step, values)))
    other = monitor(network, tmp_path, optimizer, log=writer, name="tb")
    train(network, optimizer, 3)
    found.close()
    other.close()
    writer.close()
    tag = "spectral/variance/mode_0001"
    assert [(step, v[tag]) for step, v in logged if tag in v] == [
        (step, row[0]) for step, row in zip(found.history.steps, found.history.variance, strict=True)
    ]
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    read = [(e.step, e.value) for e in events.Scalars("tb/variance/mode_0001")]
    assert read == [(s, np.float32(row[0])) for s, row in zip(other.history.steps, other.history.variance, strict=True)]


@pytest.mark.parametrize(("hooks", "count"), [(True, 32), (False, 32), (True, 4)])
def test_resumed_equals_uninterrupted(tmp_path, hooks, count):
    def run(place, *parts):
        network, optimizer = begin()
        found = None
        for steps in parts:
            state = None if found is None else (found.state_dict(), network.state_dict(), torch.get_rng_state())
            if state is not None:
                torch.save(state, tmp_path / "state.pt")
                kept, loaded, generator = torch.load(tmp_path / "state.pt", weights_only=True)
                network.load_state_dict(loaded)
            sampling = replace(SAMPLING, num_samples=count)  # 4 is a slice of a block
            found = monitor(network, place, optimizer if hooks else None, sampling=sampling)
            if state is not None:
                found.load_state_dict(kept)
                torch.set_rng_state(generator)
            train(network, optimizer, steps, found.step)
            if hooks:
                found._stop()
        found.close()
        return found

    whole, parts = run(tmp_path / "whole", STEPS), run(tmp_path / "parts", 4, STEPS - 4)
    assert parts.history.steps.tolist() == whole.history.steps.tolist()
    np.testing.assert_array_equal(parts.history.variance, whole.history.variance)
    np.testing.assert_array_equal(parts.session.prediction.variance, whole.session.prediction.variance)
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["spectral"]
    with pytest.raises(RuntimeError, match="load_state_dict"):
        parts.load_state_dict(whole.state_dict())
    network, optimizer = begin()
    with pytest.raises(ValueError, match="optimizer"):
        monitor(network, tmp_path, None if hooks else optimizer).load_state_dict(whole.state_dict())


def test_an_error_of_the_loop_leaves_whole_files_and_is_seen(tmp_path):
    network, optimizer = begin()
    found = monitor(network, tmp_path, optimizer)

    def interrupt():
        if found.history.last_step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), found:
        train(network, optimizer, 5, interrupt)
    assert SpectralHistory.load(tmp_path / "spectral" / "history.npz").steps.tolist() == [0, 1, 2, 3]
    train(network, optimizer, 3)
    assert found.history.last_step == 3  # it no longer follows


def test_an_average_of_the_weights(tmp_path):
    network, optimizer = begin()
    average, copy = AveragedModel(network), copying.deepcopy(network)
    found = monitor(network, tmp_path, optimizer, weights=average)
    by_hand = monitor(network, tmp_path, optimizer, weights=copy, name="by_hand")

    def update():
        average.update_parameters(network)
        copy.load_state_dict(average.module.state_dict())

    train(network, optimizer, 5, update)
    found.close()
    by_hand.close()
    np.testing.assert_array_equal(by_hand.history.variance[-1], found.history.variance[-1])
    average.eval()
    basis, options = found.basis, {"sample_batch_size": SAMPLING.batch_size}
    probe = SpectralProbe(basis, SAMPLING.sampler, SAMPLING.num_samples, **options)
    np.testing.assert_allclose(found.history.variance[-1], probe.measure(average.module, 0)["variance"], rtol=1e-5)


def test_fabric_and_its_wrappers(tmp_path, bare):
    fabric = Fabric(accelerator="cpu", devices=1)
    plain, adam = begin()
    network, optimizer = fabric.setup(plain, adam)
    with monitor(network, tmp_path, optimizer) as found:
        train(network, optimizer, STEPS, backward=fabric.backward)
    assert torch.equal(weights(plain), bare)
    assert found.history.last_step == STEPS


@pytest.mark.slow
def test_accelerate_on_two_processes_equals_one(tmp_path, bare):
    """And neither loads any Lightning."""
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    command = [sys.executable, "-m", "tests.support.bare_loop", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (SpectralHistory.load(tmp_path / world / "spectral" / "history.npz") for world in "12")
    assert torch.equal(torch.load(tmp_path / "weights-1-0.pt"), bare)
    assert one.steps.tolist() == two.steps.tolist() == json.loads((tmp_path / "steps-2-1.json").read_text())
    np.testing.assert_allclose(two.variance[0], one.variance[0], rtol=1e-6)
    # DDP adds the gradients of the ranks in another order.
    np.testing.assert_allclose(two.variance, one.variance, rtol=1e-3)


@pytest.mark.slow
def test_a_diffusers_network_alone(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    data = examples(64, 64).reshape(-1, 1, 8, 8)
    options = {"sampling": Sampling(num_samples=8), "output": Output(str(tmp_path), figures=False)}
    with pytest.raises(ValueError, match="schedule"):
        SpectralMonitor(network, data, "diffusers-epsilon", **options)
    scheduler = diffusers.DDPMScheduler()
    found = SpectralMonitor(network, data, Adapter("diffusers-epsilon", schedule=scheduler), **options)
    found.close()
    assert found.history.steps.tolist() == [0]
    assert "'variance_preserving'" in found.session.results.files.read_json("overlay.json")["theory"]


def test_data_are_rebuilt_from_a_loader_and_streams_refused(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(examples())

    network, _ = begin()
    loader = DataLoader(TensorDataset(examples()), batch_size=5, shuffle=True)
    before = torch.get_rng_state()
    options = {"sampling": SAMPLING, "output": Output(str(tmp_path), figures=False)}
    found = SpectralMonitor(network, loader, "edm", **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.basis.describe().count("128 training examples")
    with pytest.raises(TypeError, match="IterableDataset"):
        SpectralMonitor(network, Stream(), "edm", **options)


def test_observers_are_the_users_choice(tmp_path):
    network, _ = begin()
    found = monitor(network, tmp_path, observers=[Fitter("harmonic")])
    assert [type(o) for o in found.session.observers] == [Fitter, FloorFigure, Forecaster]
    assert found.session.comparison().measured.criterion == "harmonic"
    sampler = Sampling(num_samples=8, sampler=lambda module, latents: latents)
    found = SpectralMonitor(network, examples(), sampling=sampler, output=Output(str(tmp_path), figures=False))
    assert [type(o) for o in found.session.observers] == [Fitter, Forecaster]
    with pytest.raises(ValueError, match="Overlay"):
        SpectralMonitor(network, examples(), sampling=sampler, observers=[Overlay()])


def test_a_budget_needs_the_end(tmp_path):
    network, optimizer = begin()
    thin = Schedule(per_decade=20, max_overhead=1e-6)
    with monitor(network, tmp_path, optimizer, schedule=thin, num_steps=STEPS) as found:
        train(network, optimizer, STEPS)
    assert found.history.steps.tolist() == [0, STEPS]


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"optimizer": "adam"}, TypeError, "optimizer"),
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"log": "wandb"}, TypeError, "log"),
        ({"weights": torch.nn.Linear(3, 3)}, ValueError, "weights"),
        ({"name": "a/b"}, ValueError, "name"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"denoiser": None}, TypeError, "denoise"),
        ({"denoiser": "edm:nowhere"}, ValueError, "network"),
    ],
)
def test_wrong_arguments(options, error, name):
    with pytest.raises(error, match=name):
        SpectralMonitor(begin()[0], examples(), **{"denoiser": "edm", **options})


def test_what_would_leave_the_curves_flat_is_said(tmp_path):
    network, _ = begin()
    other, its = begin()
    with pytest.warns(UserWarning, match="`optimizer` holds no parameter"):
        idle = monitor(network, tmp_path, its)
    with pytest.warns(UserWarning, match="no update"):
        idle.close()
    train(other, its, 1)
    with pytest.warns(UserWarning, match="updates before"), monitor(other, tmp_path, its):
        train(other, its, 1)


def test_one_dimension_and_a_network_of_ones_own_by_index(tmp_path):
    options = {"output": Output(str(tmp_path), figures=False), "sampling": Sampling(num_samples=16)}
    found = SpectralMonitor(
        torch.nn.Linear(1, 1), torch.randn(50, 1), lambda z, sigma: z / (1 + sigma[:, None]), **options
    )
    assert found.history.variance.shape == (1, 1)

    class Noise(torch.nn.Module):
        """The noise in white data, from an index."""

        def forward(self, x, t):
            return x * (1 - abar[t][:, None]).sqrt()

    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()
    found = SpectralMonitor(Noise(), torch.randn(500, 4), Adapter("diffusers-epsilon", schedule=abar), **options)
    np.testing.assert_allclose(found.history.variance[0], 1, rtol=0.2)
    with pytest.raises(ValueError, match="schedule"):
        SpectralMonitor(Noise(), torch.randn(500, 4), "ddpm-epsilon", **options)
    with pytest.raises(ValueError, match="self_conditioning='off'"):
        SpectralMonitor(Noise(), torch.randn(500, 4), Adapter("ddpm-epsilon", schedule=abar), **options)


def test_a_closed_monitor_follows_nothing(tmp_path):
    network, optimizer = begin()
    found = monitor(network, tmp_path)
    train(network, optimizer, 1, found.step)
    found.close()
    found.close()
    with pytest.raises(RuntimeError, match="close"):
        found.step()


def test_the_switch_turns_it_off(tmp_path, monkeypatch, bare):
    monkeypatch.setenv("SPECTRAL_LIGHTNING", "off")
    network, optimizer = begin()
    with monitor(network, tmp_path, optimizer) as found:
        train(network, optimizer, STEPS)
    assert found.history is None
    assert not list(tmp_path.iterdir())
    assert torch.equal(weights(network), bare)
