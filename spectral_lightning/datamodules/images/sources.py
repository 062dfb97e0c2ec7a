"""Where images come from: one name, and what must be known to open it."""

from __future__ import annotations

from dataclasses import dataclass

from spectral_lightning.arguments import one_of
from spectral_lightning.datamodules.images.folder import folder_sets
from spectral_lightning.datamodules.images.sets import ImageSet
from spectral_lightning.datamodules.images.shipped import shipped_digits, shipped_faces, shipped_mnist
from spectral_lightning.datamodules.images.torchvision_sets import torchvision_sets

__all__ = ["ImageSource"]

_TORCHVISION = {
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "celeba": (3, 218, 178),
}
_SHIPPED = {
    "digits": ((1, 8, 8), shipped_digits),
    "mnist5k": ((1, 28, 28), shipped_mnist),
    "faces": ((1, 112, 92), shipped_faces),
}


@dataclass(frozen=True)
class ImageSource:
    """A set by name.

    Args:
        dataset: the name.
        root: folder of the images or of torchvision's files; None for what packages ship.
        download: whether torchvision may download.
        attribute: for ``"celeba"``, the attribute that makes two classes.

    Raises:
        ValueError: for an unknown set, and for arguments that do not belong to it.
    """

    dataset: str
    root: str | None = None
    download: bool = False
    attribute: str | None = None

    def __post_init__(self) -> None:
        one_of("dataset", self.dataset, (*_TORCHVISION, "folder", *_SHIPPED))
        if self.dataset in _SHIPPED and self.root is not None:
            raise ValueError(f"`root` must be left out for {self.dataset!r}, which a package ships, got {self.root!r}.")
        if self.dataset not in _SHIPPED and not self.root:
            raise ValueError(f"`root` must be the folder of {self.dataset!r}, got {self.root!r}.")
        if self.download and self.dataset not in _TORCHVISION:
            raise ValueError(f"`download` must be False for {self.dataset!r}, which is not torchvision's, got True.")
        if self.attribute is not None and self.dataset != "celeba":
            raise ValueError(f"`attribute` must be left out for {self.dataset!r}, got {self.attribute!r}.")

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape ``(C, H, W)`` of one image as it is stored; None for a folder, whose files must be read."""
        return _SHIPPED[self.dataset][0] if self.dataset in _SHIPPED else _TORCHVISION.get(self.dataset)

    def open(self, *, download: bool, color: bool) -> tuple[ImageSet, ImageSet | None]:
        """The training part, and the set's own validation part if it has one.

        Args:
            download: whether to download now what is missing.
            color: whether to read files in colour.

        Raises:
            ValueError: for files that are missing.
            ImportError: if the package that ships the set is not installed.
        """
        if self.root is None:
            return _SHIPPED[self.dataset][1](), None
        if self.dataset == "folder":
            return folder_sets(self.root, color=color)
        return torchvision_sets(self.dataset, self.root, download=download, attribute=self.attribute, color=color)
