"""A compiled network under measurement: the same training to the bit, and not one graph more."""

import lightning.pytorch as pl
import pytest
import torch

from tests.support.tiny_training import Body, OwnModule, loader, tracker, trainer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The reference has:UserWarning")]


class Compiled(OwnModule):
    """Its network is compiled by a backend that counts the graphs it is given."""

    def __init__(self, whole=False, dropout=0.2):
        super().__init__(Body(dropout=dropout))
        self.graphs = []
        if whole:
            self.body = torch.compile(self.body, backend=self.count)
        else:
            self.body.compile(backend=self.count)

    def count(self, graph, example_inputs):
        self.graphs.append(graph)
        return graph.forward


def fit(path, callbacks, whole):
    torch._dynamo.reset()
    pl.seed_everything(5)
    module = Compiled(whole)
    # 64 examples in batches of 12: the last one of an epoch is of another size, for which training compiles again.
    trainer(path, callbacks, max_steps=-1, max_epochs=2).fit(module, loader(batch_size=12))
    return module, torch.get_rng_state()


@pytest.mark.parametrize("whole", [True, False], ids=["torch.compile", "in place"])
def test_a_compiled_training_is_the_same_to_the_bit_with_no_other_graph(whole, tmp_path):
    trackers = [tracker(name=n, basis=n, track_gain=True, batch_size=5) for n in ("pca", "fourier", "patch")]
    plain, state = fit(tmp_path / "without", [], whole)
    tracked, tracked_state = fit(tmp_path / "with", trackers, whole)
    assert [len(t.history) for t in trackers] == [6] * 3
    assert len(plain.graphs) == len(tracked.graphs) >= 2
    assert torch.equal(state, tracked_state)
    for (name, value), (other, same) in zip(plain.state_dict().items(), tracked.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(value, same), name
