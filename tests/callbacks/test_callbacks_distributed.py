"""One, two and four gloo processes: the same histories, predictions and emergence; the same training as without us."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_lightning.report import RunFiles
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory, load_basis

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BASES = ["pca", "fourier", "patch"]
STATIC = ["target", "fixed_point", "initial_gain", "group_share", "group_target"]
MEASURED = ["variance", "standard_error", "alignment", "num_samples", "gain", "group_variance", "group_count"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every training on every number of processes."""
    out = tmp_path_factory.mktemp("runs")
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.several_processes", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**env, "OMP_NUM_THREADS": "1"},
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert [result.stderr.count(f"Starting with {world} processes") for world in (2, 4)] == [2, 1]
    return out


def history(directory: Path) -> SpectralHistory:
    return SpectralHistory.load(RunFiles(directory) / "history.npz")


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("network", ["linear", "frozen"])
@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_equal_one(runs, world, network, basis):
    one, many = (runs / f"{network}_{size}" / basis for size in (1, world))
    a, b = history(one), history(many)
    assert len(a) > 3
    assert a.steps.tolist() == b.steps.tolist()
    assert a["gain"].shape[0] == a["group_variance"].shape[0] == len(a)
    for name in (*STATIC, *MEASURED):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(a["mean_deviation"], b["mean_deviation"], atol=1e-6)
    # The reference is split by index: no example of 101 counts twice on two ranks, as a DistributedSampler would do.
    bases = [load_basis(directory / "basis.pt") for directory in (one, many)]
    assert "101 training examples" in bases[0].describe()
    assert bases[0].describe() == bases[1].describe()
    torch.testing.assert_close(bases[0].variance, bases[1].variance, rtol=1e-12, atol=0)
    # One writer: every measurement is on disk once, and the growing history is the final one.
    np.testing.assert_array_equal(HistoryDirectory(many / "history").load().variance, b.variance)
    if network == "linear":
        assert np.ptp(a.variance[:, -1]) > 0.01
    else:
        np.testing.assert_allclose(a.variance, np.broadcast_to(a.variance[0], a.variance.shape), rtol=1e-6)


@pytest.mark.parametrize("world", [2, 4])
def test_prediction_and_emergence_are_the_same(runs, world):
    one, many = (RunFiles(runs / f"linear_{size}" / "pca") for size in (1, world))
    p, q = (SpectralHistory.load(run / "prediction.npz") for run in (one, many))
    np.testing.assert_allclose(p.variance, q.variance, rtol=1e-6)
    first, other = (np.genfromtxt(run / "emergence.csv", delimiter=",", skip_header=1) for run in (one, many))
    np.testing.assert_allclose(first, other, rtol=1e-5)


@pytest.mark.parametrize("basis", BASES)
def test_lightnings_own_launcher(runs, basis):
    """Processes that run the script from its beginning, in place of forked ones."""
    a, b = history(runs / "linear_2" / basis), history(runs / "launched" / "linear_2" / basis)
    np.testing.assert_allclose(a.variance, b.variance, rtol=1e-6)


@pytest.mark.parametrize("basis", BASES)
def test_resumed_on_two_one_and_four_processes(runs, basis):
    """The first part ends in mid-epoch, each has a directory of its own."""
    whole, first, second, last = (history(runs / root / basis) for root in ("uncut", "first", "second", "third"))
    assert (first.last_step, second.last_step) == (4, 8)
    assert last.steps.tolist() == whole.steps.tolist()
    assert last.steps[-1] == 15
    for name in ("variance", "gain", "cumulative_learning_rate", *STATIC[:3]):
        np.testing.assert_allclose(last[name], whole[name], rtol=1e-6, err_msg=name)
    # The rows of the earlier parts are carried on, not measured again.
    kept = last.steps < 8
    assert kept.sum() >= 4
    np.testing.assert_array_equal(last.variance[kept], second.variance[second.steps < 8])
    np.testing.assert_array_equal(last["seconds"][kept], second["seconds"][second.steps < 8])
    assert (np.diff(last["seconds"]) >= 0).all()


@pytest.mark.parametrize("rank", [0, 1])
def test_weights_are_the_same_to_the_bit_on_two_processes(runs, rank):
    plain, tracked = (torch.load(runs / "bits" / kind / f"rank_{rank}.pt") for kind in ("without", "with"))
    assert plain["steps"] == tracked["steps"] == 6
    assert torch.equal(plain["generator"], tracked["generator"])
    for name, value in plain["weights"].items():
        assert torch.equal(value, tracked["weights"][name]), name
    assert len(history(runs / "bits" / "with" / "pca")) >= 3


@pytest.mark.parametrize("basis", BASES)
def test_a_gathering_denoiser_measures_sharded_parameters(runs, basis):
    """Parameters of every layer over two processes, under Lightning's ModelParallelStrategy, against DDP."""
    whole, sharded = (history(runs / kind / basis) for kind in ("whole", "sharded"))
    assert sharded.steps.tolist() == whole.steps.tolist()
    assert np.ptp(whole["alignment"]) > 0
    # Gradients are summed in another order.
    np.testing.assert_allclose(sharded.variance, whole.variance, rtol=1e-5)
    np.testing.assert_allclose(sharded["gain"], whole["gain"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_sharded_parameters_are_refused_on_every_rank(runs, rank):
    text = (runs / f"refused_{rank}.txt").read_text()
    assert text.startswith("The parameters of Sharded are sharded (DTensor, as with FSDP2 or tensor parallelism)")
    assert "`denoiser=`" in text
