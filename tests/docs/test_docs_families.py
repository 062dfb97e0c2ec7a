"""The tables of docs/families.md hold what the code holds."""

import re
from pathlib import Path

import pytest

from spectral_lightning import datamodules, models, spectra, theory
from spectral_lightning.diffusion import default_noise
from spectral_lightning.theory import Preconditioning

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "families.md").read_text()
LEVELS, CHANNELS, PIXELS, DEPTH, KERNEL = 3, 2, 16, 4, 3
OPTIONS = {"sigmas": [0.1, 1.0, 10.0]}


def rows(header):
    """The cells of the table whose head begins so."""
    lines = PAGE[PAGE.index(f"| {header}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("row", rows("class | F at one level"), ids=lambda row: row[0].strip("`"))
def test_each_solvable_family_names_its_theory(row):
    module = getattr(models, row[0].strip("`"))([1, 8], **OPTIONS)
    assert type(module.dynamics()) is getattr(theory, row[3].strip("`"))


def expected_parameters():
    d = CHANNELS * PIXELS
    kernel = LEVELS * CHANNELS**2
    yield "LinearDenoiser", {}, LEVELS * (d**2 + d)
    yield "DeepLinearDenoiser", {"depth": DEPTH}, LEVELS * DEPTH * d**2
    yield "DeepLinearDenoiser", {"depth": DEPTH, "tied": True}, LEVELS * d**2
    yield "FullWidthConvDenoiser", {}, kernel * PIXELS
    yield "FullWidthConvDenoiser", {"bias": "shared"}, kernel * PIXELS + LEVELS * CHANNELS
    yield "FullWidthConvDenoiser", {"bias": "per_pixel"}, kernel * PIXELS + LEVELS * CHANNELS * PIXELS
    yield "LocalConvDenoiser", {"kernel_size": KERNEL}, kernel * KERNEL**2
    yield "LocalConvDenoiser", {"kernel_size": KERNEL, "bias": "shared"}, kernel * KERNEL**2 + LEVELS * CHANNELS


@pytest.mark.parametrize(("name", "options", "expected"), list(expected_parameters()))
def test_parameters_of_the_solvable_families(name, options, expected):
    assert count(getattr(models, name)([CHANNELS, 4, 4], **OPTIONS, **options)) == expected


@pytest.mark.parametrize("row", rows("class | F | its own"), ids=lambda row: row[0].strip("`"))
def test_parameters_and_arguments_of_the_networks(row):
    network = getattr(models, row[0].strip("`"))([1, 16, 16])
    assert f"{count(network):,}" == row[3]
    named = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row[2]))
    assert {"shape", *named, "num_classes", "return"} == set(type(network).__init__.__annotations__)


@pytest.mark.parametrize("row", rows("kind | F predicts"), ids=lambda row: row[0].split()[0].strip("`"))
def test_the_noise_of_each_parametrisation(row):
    kind = row[0].split()[0].strip("`")
    one = {"skip": abs, "out": abs, "scale": abs} if kind == "given" else {}
    noise = default_noise(Preconditioning(kind, **one))
    name, arguments = re.match(r"`(\w+)\((.*)\)`", row[2]).groups()
    assert type(noise).__name__ == name
    if name == "LogNormalNoise":
        assert [noise.mean, noise.std] == [float(x) for x in arguments.split(",")]
    if name == "DDPMNoise":
        assert noise.schedule == arguments.strip('"')


def test_classes_that_are_named_exist():
    for row in rows("class | data"):
        kind = getattr(datamodules, row[0].strip("`"))
        known = "population_moments" if "population" in row[2] else "training_moments"
        assert known in dir(kind)
    for row in rows("name | class | modes"):
        if found := re.match(r"`(\w+)\((.*)\)`", row[1]):
            fields = getattr(spectra, found.group(1)).__dataclass_fields__
            assert set(found.group(2).split(", ")) <= set(fields)
