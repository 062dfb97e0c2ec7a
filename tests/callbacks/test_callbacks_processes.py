"""Several processes equal one, bit for bit the training without us; and what is left of those that are killed or fail."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_lightning.report import RunFiles
from spectral_lightning.spectra import HistoryDirectory, SpectralHistory, load_basis
from tests.support.processes import BASES, FAULT, run_all, train
from tests.support.tiny_training import DIM, same, three, tracker

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

STATIC = ["target", "fixed_point", "initial_gain", "group_share", "group_target"]
HELD_OUT = ["linear_error", "held_out_error", "over_floor", "over_floor_error", "data_gain"]
FLOOR = {"linear": HELD_OUT, "frozen": [*HELD_OUT, "class_error", "over_class_floor", "over_class_floor_error"]}
MEASURED = ["variance", "standard_error", "alignment", "num_samples", "gain", "group_variance", "group_count"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where all the processes worked, and how each ended."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
            patch.delenv(name, raising=False)
        return out, run_all(out)


def history(directory: Path) -> SpectralHistory:
    return SpectralHistory.load(RunFiles(directory) / "history.npz")


def test_nobody_waited_for_anybody_or_failed(runs):
    assert {len(runs[1][name]): set(runs[1][name]) for name in ("one", "two", "four")} == {1: {0}, 2: {0}, 4: {0}}
    assert runs[1]["again one"] == [0]


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("network", ["linear", "frozen"])
@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_equal_one(runs, world, network, basis):
    one, many = (runs[0] / f"{network}_{size}" / basis for size in (1, world))
    a, b = history(one), history(many)
    assert a.steps.tolist() == b.steps.tolist()
    assert a["gain"].shape[0] == a["group_variance"].shape[0] == len(a) > 2
    for name in (*STATIC, *MEASURED):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(a["mean_deviation"], b["mean_deviation"], atol=1e-6)
    assert ("over_floor" in a) == (basis == "pca")  # once, whatever the number of bases
    for name in FLOOR[network] if basis == "pca" else ():
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, err_msg=name)
    if (network, basis) == ("frozen", "pca"):  # two passes of 8 examples on every rank
        assert [one["training_count"].sum() for one in (a, b)] == [16, 16 * world]
    # The reference is split by index: no example of 101 counts twice on two ranks, as a DistributedSampler would do.
    bases = [load_basis(directory / "basis.pt") for directory in (one, many)]
    assert "101 training examples" in bases[0].describe()
    assert bases[0].describe() == bases[1].describe()
    torch.testing.assert_close(bases[0].variance, bases[1].variance, rtol=1e-12, atol=0)
    # One writer: every measurement is on disk once, and the growing history is the final one.
    np.testing.assert_array_equal(HistoryDirectory(many / "history").load().variance, b.variance)
    assert (np.ptp(a.variance[:, -1]) > 0.01) == (network == "linear")


@pytest.mark.parametrize("world", [2, 4])
def test_prediction_and_emergence_are_the_same(runs, world):
    one, many = (RunFiles(runs[0] / f"linear_{size}" / "pca") for size in (1, world))
    p, q = (SpectralHistory.load(run / "prediction.npz") for run in (one, many))
    np.testing.assert_allclose(p.variance, q.variance, rtol=1e-6)
    first, other = (np.genfromtxt(run / "emergence.csv", delimiter=",", skip_header=1) for run in (one, many))
    np.testing.assert_allclose(first, other, rtol=1e-5)


@pytest.mark.parametrize("basis", BASES)
def test_resumed_on_two_one_and_four_processes(runs, basis):
    """The first part ends in mid-epoch, and each has another directory."""
    whole, first, second, last = (history(runs[0] / root / basis) for root in ("linear_1", "first", "second", "third"))
    assert (first.last_step, second.last_step) == (4, 8)
    assert last.steps.tolist() == whole.steps.tolist()
    assert last.steps[-1] == 15
    floor = HELD_OUT if basis == "pca" else ()
    for name in ("variance", "gain", "cumulative_learning_rate", *STATIC[:3], *floor):
        np.testing.assert_allclose(last[name], whole[name], rtol=1e-6, err_msg=name)
    # The rows of the earlier parts are carried on, not measured again.
    kept = last.steps < 8
    assert kept.sum() >= 4
    np.testing.assert_array_equal(last.variance[kept], second.variance[second.steps < 8])
    np.testing.assert_array_equal(last["seconds"][kept], second["seconds"][second.steps < 8])
    assert (np.diff(last["seconds"]) >= 0).all()


@pytest.mark.parametrize("rank", [0, 1])
def test_weights_are_the_same_to_the_bit_on_two_processes(runs, rank):
    plain, tracked = (torch.load(runs[0] / kind / f"rank_{rank}.pt") for kind in ("without", "with"))
    assert plain["steps"] == tracked["steps"] == 6
    assert torch.equal(plain["generator"], tracked["generator"])
    assert same(plain["weights"], tracked["weights"])
    assert len(history(runs[0] / "with" / "pca")) >= 3


def test_a_gathering_denoiser_measures_sharded_parameters(runs):
    """Parameters of every layer over two processes, under Lightning's ModelParallelStrategy, against DDP."""
    whole, sharded = (history(runs[0] / kind / "pca") for kind in ("with", "sharded"))
    assert sharded.steps.tolist() == whole.steps.tolist()
    assert np.ptp(whole["alignment"]) > 0
    # Gradients are summed in another order.
    np.testing.assert_allclose(sharded.variance, whole.variance, rtol=1e-5)
    np.testing.assert_allclose(sharded["gain"], whole["gain"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_sharded_parameters_are_refused_on_every_rank(runs, rank):
    text = (runs[0] / f"refused_{rank}.txt").read_text()
    assert "Sharded are sharded (DTensor" in text
    assert "`denoiser=`" in text


# Faults.


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    measuring = tracker()
    return train(tmp_path_factory.mktemp("whole"), [measuring]), measuring.history


@pytest.mark.parametrize(
    ("fault", "rows", "checkpoint"),
    [
        ("measurement", [0, 1, 2], 3),
        ("row half written", [0, 1, 2], 3),
        ("row not renamed", [0, 1, 2], 3),
        ("history not renamed", [0, 1, 2, 5, 10, 12], 9),
    ],
)
def test_killed_and_resumed(fault, rows, checkpoint, runs, uninterrupted):
    root, (module, whole) = runs[0] / fault.replace(" ", "_"), uninterrupted
    assert runs[1][fault] == [-signal.SIGKILL]
    left = HistoryDirectory(root / "spectral" / "history").load()
    assert left.steps.tolist() == rows
    np.testing.assert_array_equal(left.variance, whole.variance[: len(rows)])
    assert not (root / "spectral" / "history.npz").exists()
    load_basis(root / "spectral" / "basis.pt")
    # On from the last checkpoint.
    callbacks = three()
    again = train(root, callbacks, root / "checkpoints" / f"step={checkpoint}.ckpt")
    on_disk = HistoryDirectory(root / "spectral" / "history").load()
    for found in (callbacks[0].history, on_disk, history(root / "spectral")):
        assert found.steps.tolist() == [0, 1, 2, 5, 10, 12]
        np.testing.assert_array_equal(found.variance, whole.variance)
    assert same(again, module)
    assert not [p for p in root.rglob("*.part") if p.with_suffix("").exists()]


def test_killed_while_the_basis_is_written(runs, uninterrupted):
    root, callbacks = runs[0] / "basis_half_written", three()
    assert runs[1]["basis half written"] == [-signal.SIGKILL]
    # Before the first step, so that there is nothing to go on from but nothing half written either.
    assert [p.name for p in root.rglob("*") if p.is_file()] == ["basis.pt.part"]
    train(root, callbacks)
    np.testing.assert_array_equal(callbacks[0].history.variance, uninterrupted[1].variance)
    assert load_basis(root / "spectral" / "basis.pt").dim == DIM


def ranks(runs, scenario):
    assert runs[1][scenario] == [0, 0]  # neither had to be ended from outside
    documents = [json.loads((runs[0] / scenario.replace(" ", "_") / f"rank_{r}.json").read_text()) for r in range(2)]
    assert [d["world"] for d in documents] == [2, 2]
    return documents


@pytest.mark.parametrize(
    ("scenario", "error"), [("skip memory", "no memory on this rank"), ("skip classify", "no such class")]
)
def test_skipped_on_one_of_two_ranks_both_go_on(scenario, error, runs):
    first, second = ranks(runs, scenario)
    for document in (first, second):
        assert document["error"] is None
        assert document["steps"] == [0, 1, 2, 10, 12]
        ((step, text),) = document["failures"]
        assert step == FAULT
        assert error in text
    assert "rank 1" in first["failures"][0][1]
    assert first["weights"] == second["weights"]


@pytest.mark.parametrize(
    ("scenario", "failing", "error", "steps"),
    [
        ("raise memory", 1, "OutOfMemoryError: no memory on this rank", [0, 1, 2]),
        ("raise start", 1, "OutOfMemoryError: no memory on this rank", []),
        ("raise classes", 1, "LookupError: no such class", []),
        ("raise logger", 0, "ConnectionError: the server does not answer", [0, 1, 2, 5]),
    ],
)
def test_raised_on_one_of_two_ranks_both_end_at_once(scenario, failing, error, steps, runs):
    documents = ranks(runs, scenario)
    assert documents[failing]["error"] == error
    assert documents[1 - failing]["error"] == f"RuntimeError: failed on rank {failing}: {error}"
    assert [d["steps"] for d in documents] == [steps, steps]
