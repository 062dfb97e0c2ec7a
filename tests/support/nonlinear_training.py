"""A few steps of training for the tests of nonlinear networks."""

from contextlib import contextmanager

import torch
from lightning.pytorch import Callback, Trainer
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch.utils.data import DataLoader, TensorDataset

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Losses(Callback):
    """Keeps the loss of every step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))


def examples(shape, count):
    """Smooth fields with a label: a random level, plus a random slope, plus little noise."""
    generator = torch.Generator().manual_seed(1)
    level, slope = torch.randn(2, count, 1, 1, 1, generator=generator)
    fields = level + slope * torch.linspace(-1, 1, shape[-1]) + 0.1 * torch.randn(count, *shape, generator=generator)
    return fields, (level.flatten() > 0).long()


def held_out_loss(module, shape):
    """Loss of the same 128 examples at the same noise, whatever was drawn before."""
    torch.manual_seed(7)
    module.eval()
    with torch.no_grad():
        return float(module.loss(examples(shape, 128)))


def fit(module, shape, precision, folder, steps=15):
    """Losses of ``steps`` steps in a Trainer, which leaves a checkpoint in the folder."""
    torch.manual_seed(0)
    losses = Losses()
    trainer = Trainer(max_steps=steps, precision=precision, callbacks=[losses], default_root_dir=folder, **QUIET)
    # The last batch has another size, as a user's has.
    trainer.fit(module, DataLoader(TensorDataset(*examples(shape, 17 * steps - 5)), batch_size=17))
    trainer.save_checkpoint(folder / "last.ckpt")
    return losses.values


def falls(module, shape, precision, folder):
    """Training keeps every loss finite, and takes that of held-out data below three quarters."""
    before = held_out_loss(module, shape)
    module.train()
    losses = fit(module, shape, precision, folder)
    assert torch.tensor(losses).isfinite().all()
    after = held_out_loss(module, shape)
    assert after < 0.75 * before


def reloaded(module, folder):
    """The module with the weights of the checkpoint that ``fit`` left."""
    module.load_state_dict(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
    return module


def trained_by_hand(module, shape, steps):
    """Plain PyTorch steps; the gradients of the last one stay."""
    torch.manual_seed(0)
    optimizer = module.configure_optimizers()
    for _ in range(steps):
        optimizer.zero_grad()
        module.loss(examples(shape, 16)).backward()
        optimizer.step()


@contextmanager
def fresh_compiler():
    """No graphs of other tests, counts from zero, and plain loops, which compile several times as fast as vectorised ones."""
    torch._dynamo.reset()
    counters.clear()
    with inductor.patch({"cpp.simdlen": 1, "cpp_cache_precompile_headers": False}):
        yield counters
    torch._dynamo.reset()
