"""Writers of small image sets in the file formats of the real ones."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CELEBA_ATTRIBUTES = ["Bald", "Smiling", "Young"]


def write_idx(path, array):
    """The format of LeCun's page: magic number with type 8 (bytes) and rank, big-endian sizes, then the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root, train=60, test=20, name="MNIST", seed=0):
    """Images and labels of both parts; class k appears every tenth time. Returns the training part."""
    rng = np.random.default_rng(seed)
    parts = {}
    for part, count in (("train", train), ("t10k", test)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        write_idx(Path(root, name, "raw", f"{part}-images-idx3-ubyte"), pixels)
        write_idx(Path(root, name, "raw", f"{part}-labels-idx1-ubyte"), labels)
        parts[part] = pixels, labels
    return parts["train"]


def compress(path):
    """The same file with gzip, as the servers of MNIST offer it."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return target


def write_cifar10(root, per_batch=20, seed=0):
    """Five training batches and a test batch, rows of 3,072 bytes, channel by channel. Returns the training pixels."""
    rng = np.random.default_rng(seed)
    folder = Path(root, "cifar-10-batches-py")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        data = rng.integers(0, 256, (per_batch, 3072)).astype(np.uint8)
        entry = {"batch_label": name, "labels": [k % 10 for k in range(per_batch)], "data": data, "filenames": []}
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
        rows.append(data)
    meta = {"num_cases_per_batch": per_batch, "label_names": CIFAR10_NAMES, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return np.concatenate(rows[:-1]).reshape(-1, 3, 32, 32)


def write_celeba(root, count=30, size=(218, 178), seed=0):
    """Pictures and the five lists, split 4 : 1 : 1. Returns which pictures are of the training part, and smile."""
    rng = np.random.default_rng(seed)
    folder = Path(root, "celeba")
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    names = [f"{k + 1:06d}.jpg" for k in range(count)]
    for name in names:
        smooth = Image.fromarray(rng.integers(0, 256, (4, 3, 3)).astype(np.uint8)).resize(size[::-1])
        smooth.save(folder / "img_align_celeba" / name, quality=95)
    partition = [(0, 0, 0, 0, 1, 2)[k % 6] for k in range(count)]
    attributes = rng.choice([-1, 1], (count, len(CELEBA_ATTRIBUTES)))
    lists = {
        "list_attr_celeba.txt": (" ".join(CELEBA_ATTRIBUTES) + " ", attributes),
        "identity_CelebA.txt": (None, [[k // 2 + 1] for k in range(count)]),
        "list_bbox_celeba.txt": ("image_id x_1 y_1 width height", [[0, 0, 9, 9]] * count),
        "list_landmarks_align_celeba.txt": ("lefteye_x lefteye_y", [[3, 4]] * count),
        "list_eval_partition.txt": (None, [[p] for p in partition]),
    }
    for name, (header, table) in lists.items():
        lines = [] if header is None else [str(count), header]
        lines += [f"{file} " + " ".join(f"{value:2d}" for value in row) for file, row in zip(names, table, strict=True)]
        (folder / name).write_text("\n".join(lines) + "\n")
    smiling = attributes[:, CELEBA_ATTRIBUTES.index("Smiling")] == 1
    return np.array(partition) == 0, smiling


def write_folder(root, counts, size=(12, 10), seed=0, suffix=".png"):
    """``counts`` pictures per class, in the layout root/class/x.png; the class "" lies in the root itself."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        folder = Path(root, name)
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(count):
            Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(folder / f"{k:05d}{suffix}")
