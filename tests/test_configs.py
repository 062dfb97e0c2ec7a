"""Every configuration states its purpose, parses, and trains a step in process with its own model, data and callbacks.

What is reduced, and nothing else: batches of 8, 8 latents, samplers of 3 steps, 2,000 patches of photographs, UNets of 8
channels. The configurations of the paper's size (``LARGE``) also read a few images in the real format on disk, at 8x8
pixels, by at most one worker, with a network of the same class and arguments but small, uncompiled, on one device. Networks
are built in full on the meta device.
"""

import importlib
import re
from pathlib import Path

import lightning.pytorch.callbacks
import numpy as np
import pytest
import torch
import yaml

from spectral_lightning.callbacks import AnalyticOverlay, SpectralTracker
from spectral_lightning.cli import main
from tests.support.image_fixtures import write_cifar10, write_folder

ROOT = Path(__file__).parents[1]
CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
LARGE = ("cifar10_mlp", "cifar10_unet", "ffhq_mlp", "ffhq_unet", "ddp", "slurm")
SMALL = {
    "ResidualMLP": {"width": 16, "num_blocks": 2},
    "UNet": {"num_blocks": 1, "attention_resolutions": [4]},
}
WORDS = {
    **{network: f"--model.network={network}" for network in ("UNet", "DiT")},
    **{
        f"{family}Denoiser": f"--model={family}Denoiser"
        for family in ("Linear", "DeepLinear", "LocalConv", "FullWidthConv")
    },
}
AVERAGES = "EMAWeightAveraging" in dir(lightning.pytorch.callbacks)


def loaded(name):
    return yaml.safe_load(CONFIGS[name].read_text())


def head(name):
    """The comment at the top, as one text."""
    lines = CONFIGS[name].read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("# ") for line in lines[:end])


def kind(document):
    """The class of the network; "" for a solvable family."""
    network = document["model"]["init_args"].get("network", "")
    return (network if isinstance(network, str) else network["class_path"]).split(".")[-1]


def trackers(document):
    return [c for c in document["trainer"]["callbacks"] if c["class_path"].endswith(".SpectralTracker")]


def reduced(document, name):
    """The document at the cost of a test; see the top of this file."""
    document["trainer"].update(accelerator="cpu", fast_dev_run=1)
    model, data = document["model"]["init_args"], document["data"]["init_args"]
    data["batch_size"] = min(8, data["batch_size"])
    if document["data"]["class_path"].endswith("PatchDataModule"):
        data["max_patches"] = 2_000
    for tracker in trackers(document):
        sampling = tracker.setdefault("init_args", {}).setdefault("sampling", {})
        sampling.update(num_samples=8, batch_size=8)
        if "network" in model:  # the solvable families bring their own sampler
            sampling["sampler"] = {"num_steps": 3}
    if kind(document) == "UNet":
        model["network"]["init_args"]["width"] = 8
    if name in LARGE:
        document["trainer"].update(devices=1, num_nodes=1, strategy="auto", plugins=None)
        model.update(shape=[3, 8, 8], compile=False)
        model["network"]["init_args"].update(SMALL[kind(document)])
        data.update(resize=8, num_workers=min(1, data.get("num_workers", 0)))
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
def images(name, tmp_path, monkeypatch):
    """For a configuration that needs them, the sets that are not shipped, small, in their own formats; no download."""
    if name not in LARGE:
        return

    def refuse(*arguments, **options):
        raise AssertionError(f"a download was tried: {arguments}")

    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).exists())
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    write_cifar10(tmp_path / "data", per_batch=50)
    write_folder(tmp_path / "data" / "ffhq", {"00000": 120, "01000": 120}, size=(40, 48))


def cases():
    for name, path in CONFIGS.items():
        averaged = "EMAWeightAveraging" in path.read_text()
        old = pytest.mark.skipif(averaged and not AVERAGES, reason="weight averaging by steps came with lightning 2.6")
        yield pytest.param(name, marks=old)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(cases()))
def test_a_step_of_every_configuration(name, train, images, tmp_path, recwarn):
    document = reduced(loaded(name), name)
    measured, overlays, _ = train(document)
    assert [t.session.name for t in measured] == [t["init_args"].get("name", "spectral") for t in trackers(document)]
    for tracker in measured:
        assert tracker.history.steps.tolist() == [0, 1]
        assert np.isfinite(tracker.history.variance).all()
    for overlay in overlays:
        assert len(overlay.history) in (0, 2)  # none while a fitted clock waits for modes to cross
        assert len(overlay.history) == 2 or overlay.describe_clock().startswith("clock: one factor")
    assert not list(tmp_path.rglob("history.npz"))  # a trial run writes nothing
    ours = {str(w.message)[:60] for w in recwarn if "spectral_lightning" in w.filename}
    assert all(name.startswith("faces") and "examples in 1024 dimensions" in text for text in ours)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_comment_states_purpose_and_duration(name):
    assert len(head(name)) > 80
    assert re.search(r"second|minute|hour|day", head(name))


@pytest.mark.parametrize("name", [n for n in CONFIGS if "million parameters" in head(n)])
def test_networks_are_as_large_as_stated(name):
    arguments = loaded(name)["model"]["init_args"]
    home, _, network = arguments["network"]["class_path"].rpartition(".")
    with torch.device("meta"):
        made = getattr(importlib.import_module(home), network)(arguments["shape"], **arguments["network"]["init_args"])
    stated = re.search(r"([\d.]+) million parameters", head(name)).group(1)
    decimals = len(stated.partition(".")[2])
    assert f"{sum(p.numel() for p in made.parameters()) / 1e6:.{decimals}f}" == stated


def test_the_job_script_is_made_for_its_configuration():
    trainer = loaded("slurm")["trainer"]
    script = (ROOT / "configs" / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script, re.MULTILINE))
    assert int(options["nodes"]) == trainer["num_nodes"]
    assert int(options["ntasks-per-node"]) == int(options["gpus-per-node"]) == trainer["devices"]
    assert options["signal"].startswith(trainer["plugins"][0]["init_args"]["requeue_signal"] + "@")
    assert "#SBATCH --requeue" in script
    assert re.search(r"^srun .*fit --config configs/slurm.yaml", script, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("word", WORDS)
def test_another_network_by_one_word(word, train):
    """The demo's file, on patches of one photograph."""
    document = reduced(loaded("natural_patches_mlp"), "natural_patches_mlp")
    document["data"]["init_args"].update(photographs=["camera"], max_patches=600)
    # A sampler of 3 steps is not at the levels of the linear families.
    del trackers(document)[0]["init_args"]["sampling"]["sampler"]
    (tracker,), (overlay,), module = train(document, WORDS[word])
    assert word in (type(module).__name__, type(module.network).__name__)
    assert tracker.history.steps.tolist() == [0, 1]
    assert (module.preconditioning.kind, module.preconditioning.sigma_data) == ("edm", 1.0)
    assert type(module.optimizer([torch.nn.Parameter(torch.zeros(1))])).__name__ == "Adam"
    assert module.initial_learning_rate() == 3e-4
    assert sum(p.numel() for p in module.parameters()) < 5e6  # small enough for the demo's machine
    assert any("Adam" in departure.text for departure in overlay.departures)
