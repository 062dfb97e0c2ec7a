"""Predictions between the times at which they are computed."""

import numpy as np

from spectral_lightning.prediction.table import Table


def test_a_table_meets_the_curves_between_its_nodes():
    rates, counted = np.geomspace(1e-4, 3.0, 8), []

    def curves(time):
        counted.append(len(time))
        return 0.01 * (1e-3 + 50 * np.exp(-np.outer(time, rates)) + 9 * (1 - np.exp(-2 * np.outer(time, rates))))

    table, time = Table(curves, rates), np.concatenate([[0.0], np.geomspace(1e-6, 1e9, 999)])
    assert sum(counted) < 64
    assert np.abs(np.log(table(time) / curves(time))).max() < 5e-3
