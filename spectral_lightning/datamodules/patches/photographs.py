"""Photographs that scikit-image ships in its wheel, found without a download."""

from __future__ import annotations

from pathlib import Path

from spectral_lightning.arguments import one_of
from spectral_lightning.datamodules.files import image_files, package_folder

__all__ = ["COLOR_PHOTOGRAPHS", "PHOTOGRAPHS", "shipped_photographs"]

COLOR_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
"""The photographs in colour, used if colour is requested and none are named."""

PHOTOGRAPHS = (*COLOR_PHOTOGRAPHS, "brick", "camera", "coins", "grass", "gravel", "moon")
"""The photographs used if none are named. Micrographs, drawings and text are left out."""

_ALSO_SHIPPED = ("hubble_deep_field", "ihc", "motorcycle_right", "retina")


def shipped_photographs(names: list[str] | None = None, *, color: bool = False) -> list[Path]:
    """Files of photographs that scikit-image ships.

    Args:
        names: as in ``skimage.data``; None takes all of :data:`PHOTOGRAPHS`, or of :data:`COLOR_PHOTOGRAPHS`.
        color: whether colour is requested.

    Raises:
        ImportError: if scikit-image is not installed.
        ValueError: for an unknown or repeated name, or no name at all.
    """
    chosen = list(COLOR_PHOTOGRAPHS if color else PHOTOGRAPHS) if names is None else list(names)
    for name in chosen:
        one_of("photographs", name, (*PHOTOGRAPHS, *_ALSO_SHIPPED))
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"`photographs` must be one or more different names, got {names!r}.")
    # The files, not the functions of skimage.data: those download what they do not find.
    folder = package_folder("skimage", "scikit-image") / "data"
    files = {path.stem: path for path in image_files(folder, "photographs")}
    return [files[name] for name in chosen]
