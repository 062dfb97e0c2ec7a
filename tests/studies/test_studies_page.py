"""The page says what the stored tables say: it is made again, changes with them, and its exponents come by another route."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from studies import page
from studies.figures import FIGURES, save
from studies.orders import patches
from studies.store import ROOT, STORE, load
from studies.trainings import STUDIES, is_done
from tests.support.stored_orders import arrays, check_law, passages

RUNS = [(study, run) for study, runs in STUDIES.items() for run in runs]


@pytest.fixture(scope="module")
def found():
    return page.computed()


@pytest.mark.slow
def test_every_number_is_that_of_the_stored_tables(found):
    assert page.page(found) == (STORE / "README.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert page.readme(found, readme) == readme


@pytest.mark.slow
def test_a_readme_without_its_marks_is_refused(found):
    with pytest.raises(ValueError, match="`text`"):
        page.readme(found, "no marks")


def test_what_is_stored_is_what_the_studies_define():
    """Nothing is left over from a training that was renamed; changed definitions are trained, or adopted."""
    assert {file.parts[-3:-1] for file in STORE.glob("*/*/*")} == {(study, run.name) for study, run in RUNS}
    assert [f"{study}/{run.name}" for study, run in RUNS if not is_done(run, STORE / study / run.name)] == []


def test_no_place_of_one_machine_is_stored():
    for file in [*STORE.glob("*/*/*.yaml"), *STORE.glob("*/*/*.json")]:
        assert not re.search(r"(/home/|/root/|/tmp/|/work/)", file.read_text()), file


@pytest.mark.slow
def test_the_page_follows_the_tables(tmp_path, found):
    """With every step of one training doubled, and its learning rate the same, sharing weights gains half as much."""
    shutil.copytree(STORE / "patches", tmp_path / "patches")
    file = tmp_path / "patches" / "full_width_descent" / "fourier.npz"
    with np.load(file) as arrays:
        changed = {**arrays, **{name: 2 * arrays[name] for name in ("step", "cumulative_learning_rate")}}
    np.savez(file, **changed)
    other = patches(load(tmp_path / "patches", [run.name for run in STUDIES["patches"]]))
    after = other["rate"].value
    assert after == pytest.approx(found["patches"]["rate"].value / 2, rel=0.01)
    text = page.page({**found, "patches": other})
    assert f"| {after:.2f} [" in text
    assert "not confirmed: 0.50 N" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "panels"), [("gaussian", 6), ("patches", 15), ("images", 4), ("exponent", 2), ("predictions", 3)]
)
def test_every_study_has_a_figure(found, study, panels):
    figure = FIGURES[study](found[study])
    assert len(figure.axes) == panels
    assert tuple(figure.get_size_inches()) <= (10, 6)
    assert 10_000 < (STORE / f"{study}.png").stat().st_size < 100_000


@pytest.mark.slow
def test_a_figure_is_small_and_keeps_its_colours(tmp_path, found):
    save(FIGURES["predictions"](found["predictions"]), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size < 50_000
    with Image.open(tmp_path / "figure.png") as image:
        pixels = np.asarray(image.convert("RGB"), int).reshape(-1, 3)
    for color in ("b2432f", "2b5c8a"):
        assert np.abs(pixels - list(bytes.fromhex(color))).sum(1).min() < 12


@pytest.mark.parametrize("criterion", ["geometric", "harmonic"])
@pytest.mark.parametrize("way", ["rising", "falling"])
@pytest.mark.parametrize("run", [run.name for run in STUDIES["gaussian"]])
def test_exponents_of_experiment_one_by_another_route(found, run, way, criterion):
    stored = arrays("gaussian", run)
    start, end, lam = stored["variance"][0], stored["fixed_point"], stored["target"]
    chosen = (np.maximum(start / end, end / start) > 2) & ((end > start) == (way == "rising"))
    time = passages(stored["step"], stored["variance"], end, criterion)
    (law,) = (
        case["measured"][place]
        for (dim, *which), case in found["gaussian"]["cases"].items()
        for place, seed in enumerate(found["gaussian"]["seeds"][dim])
        if (f"d{dim}_seed{seed}", *which) == (run, way, criterion)
    )
    check_law(law, lam[chosen], time[chosen])
    begin = "| {} | {} | ".format(*re.findall(r"\d+", run)) + f"{way} | {criterion} | {law} |"
    assert any(row.startswith(begin) for row in (STORE / "README.md").read_text().splitlines())


@pytest.mark.slow
def test_kept_laws_are_those_that_are_fitted(found):
    cases = found["gaussian"]["cases"]
    for way, criterion in (("rising", "geometric"), ("falling", "harmonic")):
        fitted = cases[128, way, criterion]["compared"][0].measured.law(way)
        assert str(fitted) == str(cases[128, way, criterion]["measured"][0])
