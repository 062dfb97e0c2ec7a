"""Every configuration states its purpose, parses, and trains a step in process with its own model, data and callbacks.

What is reduced, and nothing else: batches of 32, 8 latents, samplers of 3 steps, 2,000 patches of photographs. The
configurations of the paper's size
(``LARGE``) also read a few images in the real format on disk, at 8x8 pixels, with a network of the same class and
arguments but few channels, uncompiled, on one device; their networks are built in full on the meta device.
"""

import re
from pathlib import Path

import lightning.pytorch.callbacks
import numpy as np
import pytest
import torch
import yaml

from spectral_lightning import models
from spectral_lightning.callbacks import AnalyticOverlay, SpectralTracker
from spectral_lightning.cli import main
from tests.support.image_fixtures import write_cifar10, write_folder

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PROMISED = {
    *("gaussian_linear", "gaussian_mlp", "gaussian_mlp_256", "gaussian_mlp_512", "gaussian_flow_matching"),
    *("field_linear", "field_deep_linear", "field_full_width_conv", "field_local_conv"),
    *(f"natural_patches_{network}" for network in ("mlp", "full_width_conv", "local_conv", "unet", "dit")),
    *("mnist_mlp", "mnist_unet", "faces_mlp", "faces_unet", "class_imbalance", "class_conditional"),
    *("reordered_spectrum", "cifar10_mlp", "cifar10_unet", "ffhq_mlp", "ffhq_unet", "ddp", "slurm"),
}
LARGE = ("cifar10_mlp", "cifar10_unet", "ffhq_mlp", "ffhq_unet", "ddp", "slurm")
SMALL = {
    "MLPDenoiser": {"width": 16, "num_blocks": 2},
    "UNetDenoiser": {"width": 8, "num_blocks": 1, "attention_resolutions": [4]},
}
NETWORKS = (
    *("UNetDenoiser", "DiTDenoiser", "LocalConvDenoiser", "FullWidthConvDenoiser"),
    *("LinearDenoiser", "DeepLinearDenoiser"),
)
AVERAGES = "EMAWeightAveraging" in dir(lightning.pytorch.callbacks)


def loaded(name):
    return yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())


def head(path):
    """The comment at the top, as one text."""
    lines = path.read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("# ") for line in lines[:end])


def trackers(document):
    return [c for c in document["trainer"]["callbacks"] if c["class_path"].endswith(".SpectralTracker")]


def kind(document):
    """The class of the model, without its package."""
    return document["model"]["class_path"].split(".")[-1]


def reduced(document, name):
    """The document at the cost of a test; see the top of this file."""
    document["trainer"].update(accelerator="cpu", fast_dev_run=1)
    data = document["data"]["init_args"]
    data["batch_size"] = min(32, data["batch_size"])
    if document["data"]["class_path"].endswith("PatchDataModule"):
        data["max_patches"] = 2_000
    for tracker in trackers(document):
        arguments = tracker.setdefault("init_args", {})
        arguments.update(num_samples=8, sample_batch_size=8)
        if kind(document) in ("MLPDenoiser", "UNetDenoiser", "DiTDenoiser"):  # the others bring their own sampler
            arguments["sampler"] = {"num_steps": 3}
    if name in LARGE:
        document["trainer"].update(devices=1, num_nodes=1, strategy="auto", plugins=None)
        document["model"]["init_args"].update(shape=[3, 8, 8], compile=False, **SMALL[kind(document)])
        data["resize"] = 8
        trackers(document)[1]["init_args"]["basis"]["init_args"]["bands"] = 4
    return document


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs ``fit`` on a document; gives the trackers, overlays and module that were in it."""

    def run(document, *arguments):
        found = []
        ended = SpectralTracker.on_train_end

        def record(tracker, trainer, pl_module):
            ended(tracker, trainer, pl_module)
            found.append((tracker, trainer.callbacks, pl_module))

        monkeypatch.setattr(SpectralTracker, "on_train_end", record)
        monkeypatch.chdir(tmp_path)
        Path("config.yaml").write_text(yaml.safe_dump(document))
        main(["fit", "--config=config.yaml", *arguments])
        _, callbacks, module = found[0]
        return [t for t, _, _ in found], [c for c in callbacks if isinstance(c, AnalyticOverlay)], module

    return run


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The sets that are not shipped, small, in their own formats; a download fails the test."""

    def refuse(*arguments, **options):
        raise AssertionError(f"a download was tried: {arguments}")

    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).exists())
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    write_cifar10(tmp_path / "data", per_batch=50)
    write_folder(tmp_path / "data" / "ffhq", {"00000": 120, "01000": 120}, size=(40, 48))


def cases():
    for path in CONFIGS:
        averaged = "EMAWeightAveraging" in path.read_text()
        old = pytest.mark.skipif(averaged and not AVERAGES, reason="weight averaging by steps came with lightning 2.6")
        yield pytest.param(path.stem, marks=old)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(cases()))
def test_a_step_of_every_configuration(name, train, images, tmp_path, recwarn):
    document = reduced(loaded(name), name)
    measured, overlays, _ = train(document)
    assert [t.name for t in measured] == [t["init_args"].get("name", "spectral") for t in trackers(document)]
    for tracker in measured:
        assert tracker.history.steps.tolist() == [0, 1]
        assert np.isfinite(tracker.history.variance).all()
    for overlay in overlays:
        assert len(overlay.history) in (0, 2)  # none while a fitted clock waits for modes to cross
        assert len(overlay.history) == 2 or overlay.describe_clock().startswith("clock: one factor")
    assert not list(tmp_path.rglob("history.npz"))  # a trial run writes nothing
    ours = {str(w.message)[:60] for w in recwarn if "spectral_lightning" in w.filename}
    assert all(name.startswith("faces") and "examples in 1024 dimensions" in text for text in ours)


@pytest.mark.parametrize("name", [n for n in sorted(PROMISED) if n.startswith(("field_", "gaussian_linear"))])
def test_linear_families_descend_on_the_exact_loss_and_are_compared_in_every_basis(name):
    document = loaded(name)
    arguments = document["model"]["init_args"]
    assert (arguments["objective"], arguments["optimizer"]["class_path"]) == ("exact", "torch.optim.SGD")
    overlays = [c for c in document["trainer"]["callbacks"] if c["class_path"].endswith(".AnalyticOverlay")]
    followed = [c.get("init_args", {}).get("tracker", "spectral") for c in overlays]
    assert sorted(followed) == sorted(t["init_args"].get("name", "spectral") for t in trackers(document))
    assert all(t["init_args"]["num_samples"] == 128 for t in trackers(document))  # 2 d: no sampling error


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_first_comment_states_purpose_and_duration(path):
    assert path.read_text().startswith("# ")
    text = head(path)
    assert len(text) > 80
    assert re.search(r"second|minute|hour|day", text)


def test_every_configuration_is_known_and_tested():
    assert {path.stem for path in CONFIGS} == PROMISED
    assert set(LARGE) <= PROMISED


@pytest.mark.parametrize("path", [p for p in CONFIGS if "million parameters" in head(p)], ids=lambda path: path.stem)
def test_networks_are_as_large_as_stated(path):
    document = loaded(path.stem)
    ours = {k: v for k, v in document["model"]["init_args"].items() if k not in ("preconditioning", "optimizer")}
    with torch.device("meta"):
        model = getattr(models, kind(document))(**ours)
    stated = re.search(r"([\d.]+) million parameters", head(path)).group(1)
    decimals = len(stated.partition(".")[2])
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.{decimals}f}" == stated


@pytest.mark.parametrize("name", [n for n in LARGE if n not in ("ddp", "slurm")])
def test_the_paper_s_size(name):
    document = loaded(name)
    tracker = trackers(document)[0]["init_args"]
    assert (document["data"]["init_args"]["batch_size"], document["trainer"]["max_steps"]) == (2048, 100_000)
    assert tracker["sampler"] == {"num_steps": 40}
    if kind(document) == "MLPDenoiser":
        arguments = document["model"]["init_args"]
        assert [arguments[k] for k in ("num_blocks", "width", "embedding")] == [8, 3072, 128]


def test_several_gpus_and_machines():
    ddp, slurm = loaded("ddp")["trainer"], loaded("slurm")["trainer"]
    assert (ddp["strategy"], ddp["devices"]) == ("ddp", "auto")
    assert (slurm["strategy"], slurm["devices"], slurm["num_nodes"]) == ("ddp", 4, 2)
    (plugin,) = slurm["plugins"]
    assert plugin["class_path"].endswith(".SLURMEnvironment")
    assert plugin["init_args"] == {"auto_requeue": True, "requeue_signal": "SIGUSR1"}
    script = (ROOT / "configs" / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script, re.MULTILINE))
    assert (options["nodes"], options["ntasks-per-node"], options["gpus-per-node"]) == ("2", "4", "4")
    assert options["signal"].startswith("SIGUSR1@")
    assert "#SBATCH --requeue" in script
    assert re.search(r"^srun .*fit --config configs/slurm.yaml", script, re.MULTILINE)


def natural_patches():
    """The demo's file, on patches of one photograph."""
    document = reduced(loaded("natural_patches_mlp"), "natural_patches_mlp")
    document["data"]["init_args"].update(photographs=["camera"], max_patches=600)
    del trackers(document)[0]["init_args"]["sampler"]  # that of 3 steps is not at the levels of the linear families
    return document


@pytest.mark.slow
@pytest.mark.parametrize("where", ["file", "command line"])
@pytest.mark.parametrize("network", NETWORKS)
def test_another_network_by_one_word(network, where, train):
    document = natural_patches()
    if where == "file":
        document["model"]["class_path"] = document["model"]["class_path"].replace("MLPDenoiser", network)
    (tracker,), (overlay,), module = train(document, *([f"--model={network}"] if where == "command line" else []))
    assert type(module).__name__ == network
    assert tracker.history.steps.tolist() == [0, 1]
    assert (module.preconditioning.kind, module.preconditioning.sigma_data) == ("edm", 1.0)
    assert type(module.optimizer([torch.nn.Parameter(torch.zeros(1))])).__name__ == "Adam"
    assert module.initial_learning_rate() == 3e-4
    assert sum(p.numel() for p in module.parameters()) < 5e6  # small enough for the demo's machine
    assert any("Adam" in departure.text for departure in overlay.departures)


def test_networks_are_exchanged_by_one_word_because_the_file_names_no_other_argument():
    shared = {"shape", "preconditioning", "noise", "reduction", "optimizer", "lr_scheduler"}
    assert set(loaded("natural_patches_mlp")["model"]["init_args"]) <= shared
