"""The training loss, logged for less, is seen as plain ``self.log`` shows it: where, when and what."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from spectral_lightning.models import DiffusionModule

BATCHES = 7


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x, noise):
        return self.layer(x)


class Plain(DiffusionModule):
    """What the module stands for."""

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train/loss", loss)
        return loss


class Averaged(DiffusionModule):
    """A user's wish for the average over an epoch, which every batch enters by its size."""

    def log(self, name, value, **options):
        super().log(name, value, **{**options, "on_step": True, "on_epoch": True})


class AveragedPlain(Averaged, Plain):
    pass


class Counting(DiffusionModule):
    """How often Lightning's own ``log`` is called."""

    calls = 0

    def log(self, name, value, **options):
        self.calls += name == "train/loss"
        super().log(name, value, **options)


class Seen(Callback):
    """What any callback can read, wherever it reads."""

    def __init__(self):
        self.values = []

    def _read(self, trainer):
        for metrics in (trainer.callback_metrics, trainer.logged_metrics):
            self.values.append({key: value.item() for key, value in metrics.items()})

    def on_train_batch_start(self, trainer, *_):
        self._read(trainer)

    def on_train_batch_end(self, trainer, *_):
        self._read(trainer)

    def on_validation_end(self, trainer, *_):
        self._read(trainer)

    def on_train_epoch_end(self, trainer, *_):
        self._read(trainer)


def loader(size=2):
    return DataLoader(torch.randn(BATCHES * size - 1, 3, generator=torch.Generator().manual_seed(0)), batch_size=size)


def fit(module_class, directory, *callbacks, ckpt_path=None, **options):
    """Rows of the logger's file, and what callbacks saw."""
    seed_everything(3, verbose=False)
    module, seen, logger = module_class(Net()), Seen(), CSVLogger(directory, name="", version="")
    # Early stopping and checkpoints come after `seen` in the list; they read what it reads.
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=logger, callbacks=[seen, *callbacks], default_root_dir=directory,
        enable_progress_bar=False, enable_model_summary=False, **{"max_epochs": 3, "log_every_n_steps": 3, **options},
    )  # fmt: skip
    trainer.fit(module, loader(), loader(), ckpt_path=ckpt_path, weights_only=False)
    file = directory / "metrics.csv"
    return (file.read_text() if file.exists() else ""), seen, trainer, module


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"log_every_n_steps": 1},
        {"accumulate_grad_batches": 2, "log_every_n_steps": 2},
        {"val_check_interval": 2},
        {"max_epochs": -1, "max_steps": 11},
        {"precision": "bf16-mixed"},
        {"fast_dev_run": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "pair",
    [
        pytest.param((DiffusionModule, Plain), id="steps"),
        pytest.param((Averaged, AveragedPlain), id="epochs", marks=pytest.mark.slow),
    ],
)
def test_loggers_and_callbacks_see_the_same_at_the_same_steps(pair, options, tmp_path):
    text, seen, _, _ = fit(pair[0], tmp_path / "ours", **options, enable_checkpointing=False)
    expected, plain, _, _ = fit(pair[1], tmp_path / "plain", **options, enable_checkpointing=False)
    assert text == expected
    assert seen.values == plain.values
    assert len({str(values) for values in seen.values}) > 2  # a loss that never changes would agree with anything
    assert "fast_dev_run" in options or text.count("\n") > 3


def test_checkpoints_and_early_stopping_follow_the_same_losses(tmp_path):
    names, stopped = {}, {}
    for module_class in (DiffusionModule, Plain):
        directory = tmp_path / module_class.__name__
        kept = ModelCheckpoint(directory / "kept", "{step}-{train/loss:.6f}", "train/loss", save_top_k=2,
                               every_n_train_steps=2, auto_insert_metric_name=False)  # fmt: skip
        patience = EarlyStopping("train/loss", patience=1, check_on_train_epoch_end=True)
        _, _, trainer, _ = fit(module_class, directory, kept, patience, max_epochs=20)
        names[module_class] = sorted(str(path.relative_to(directory)) for path in directory.rglob("*.ckpt"))
        stopped[module_class] = (trainer.global_step, float(patience.best_score), float(kept.best_model_score))
    assert names[DiffusionModule] == names[Plain]
    assert len(names[Plain]) == 2
    assert stopped[DiffusionModule] == stopped[Plain]
    assert stopped[Plain][0] < 20 * BATCHES


def test_a_run_resumed_within_an_epoch_logs_the_same(tmp_path):
    rows, values = {}, {}
    for module_class in (DiffusionModule, Plain):
        directory = tmp_path / module_class.__name__
        _, _, trainer, _ = fit(module_class, directory / "first", max_epochs=-1, max_steps=10)
        trainer.save_checkpoint(directory / "at_10.ckpt")
        text, seen, _, _ = fit(module_class, directory / "second", ckpt_path=directory / "at_10.ckpt")
        rows[module_class], values[module_class] = text, seen.values
    assert rows[DiffusionModule] == rows[Plain]
    assert "train/loss" in rows[Plain]
    assert values[DiffusionModule] == values[Plain]


def test_lightning_is_asked_once_in_an_epoch(tmp_path):
    """If this fails with a new Lightning, the module still logs, at Lightning's price."""
    _, _, _, module = fit(Counting, tmp_path, enable_checkpointing=False)
    assert module.calls == 3


def test_a_step_without_a_trainer_only_warns():
    with pytest.warns(UserWarning, match="`self.trainer` reference is not registered"):
        loss = DiffusionModule(Net()).training_step(torch.zeros(4, 3), 0)
    assert loss.requires_grad
