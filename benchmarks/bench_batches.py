"""Batches from the pack against the published pipeline: decode and transform each picture on its own, every epoch.

Two claims: delivering uint8 batches to the device (goal: at least ten times as many images a second as the published
pipeline), and normalised batches augmented on this CPU, as measured.
"""

from hiwl.model.torchvision_mend import mend_torchvision

mend_torchvision()

# isort: split
import io

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from common import jpegs, machine, seconds, spread
from hiwl.model.preprocess import Preprocess
from hiwl.training.augment import augment, draw
from hiwl.training.params import AugmentParams

COUNT, BATCH = 480, 24
PARAMS = AugmentParams(rotation=25, scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
MEAN, STD = (0.046, 0.041, 0.030), (0.090, 0.075, 0.065)


class Published(Dataset[torch.Tensor]):
    """The published pipeline's data set: a JPEG in, a normalised tensor out."""

    def __init__(self, pictures: list[bytes], size: int) -> None:
        self.pictures = pictures
        self.chain = v2.Compose(
            [
                v2.CenterCrop(256),
                v2.RandomRotation(25),
                v2.RandomResizedCrop(size, scale=(0.9, 1.0)),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(MEAN), list(STD)),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> torch.Tensor:
        tensor: torch.Tensor = self.chain(Image.open(io.BytesIO(self.pictures[row])).convert("RGB"))
        return tensor


def main() -> None:
    print(machine(), f"torch {torch.__version__}, one thread, {COUNT} images an epoch, batches of {BATCH}")
    torch.set_num_threads(1)
    pictures = jpegs(40) * (COUNT // 40)
    generator = torch.Generator().manual_seed(1)
    for side, size in ((256, 240), (64, 64)):
        packed = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (COUNT, side, side, 3), dtype=np.uint8))

        def deliver(packed: torch.Tensor = packed) -> None:
            for rows in torch.randperm(COUNT, generator=generator).split(BATCH):
                packed[rows]

        def augmented(packed: torch.Tensor = packed, side: int = side, size: int = size) -> None:
            for rows in torch.randperm(COUNT, generator=generator).split(BATCH):
                augment(packed[rows], draw(len(rows), side, PARAMS, generator), Preprocess(size, MEAN, STD))

        published = DataLoader(Published(pictures, size), batch_size=BATCH, shuffle=True)
        theirs = seconds(lambda published=published: list(published), 3)  # type: ignore[misc]
        for name, work in (("uint8 batches", deliver), ("normalised, augmented batches", augmented)):
            ours = seconds(work, 3)
            print(f"{size} px, {name}: {spread([COUNT / t for t in ours], 'images/s')}")
            print(f"{size} px, published pipeline: {spread([COUNT / t for t in theirs], 'images/s')}")
            print(f"{size} px, ratio ours / published: {min(theirs) / min(ours):.1f}")


main()
