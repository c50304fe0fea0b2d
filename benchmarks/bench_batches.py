"""Batches from the pack: our augmentation against torchvision's and kornia's from the same pack, and the whole against
the published pipeline, which decodes and transforms each picture on its own, every epoch.

What we gain over the published pipeline is mostly the decoding that the pack saves; what the augmentation itself gains
is the ratio to the other two, which draw each picture's transform anew as ours does. One thread each.
"""

from hiwl.model.torchvision_mend import mend_torchvision

mend_torchvision()

# isort: split
import io

import kornia.augmentation as K
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


def torchvisions(size: int) -> v2.Compose:
    """The published pipeline's transform, for one packed picture (3, side, side)."""
    return v2.Compose(
        [
            v2.RandomRotation(25),
            v2.RandomResizedCrop(size, scale=(0.9, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(MEAN), list(STD)),
        ]
    )


def kornias(size: int) -> torch.nn.Sequential:
    """The same for a batch (n, 3, side, side) of numbers in [0, 1]; a transform of its own for each picture."""
    return torch.nn.Sequential(
        K.RandomRotation(25.0, p=1.0),
        K.RandomResizedCrop((size, size), scale=(0.9, 1.0), p=1.0),
        K.RandomHorizontalFlip(),
        K.RandomVerticalFlip(),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )


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

        chain, layers = torchvisions(size), kornias(size)

        def by_torchvision(packed: torch.Tensor = packed, chain: v2.Compose = chain) -> None:
            for rows in torch.randperm(COUNT, generator=generator).split(BATCH):
                torch.stack([chain(picture) for picture in packed[rows].permute(0, 3, 1, 2)])

        def by_kornia(packed: torch.Tensor = packed, layers: torch.nn.Sequential = layers) -> None:
            for rows in torch.randperm(COUNT, generator=generator).split(BATCH):
                layers(packed[rows].permute(0, 3, 1, 2).float() / 255)

        published = DataLoader(Published(pictures, size), batch_size=BATCH, shuffle=True)
        work = {
            "uint8 batches from the pack": deliver,
            "ours, from the pack": augmented,
            "torchvision, from the pack": by_torchvision,
            "kornia, from the pack": by_kornia,
            "published pipeline, from JPEG": lambda published=published: list(published),
        }
        taken = {name: seconds(each, 3) for name, each in work.items()}
        ours = min(taken["ours, from the pack"])
        for name, times in taken.items():
            rate = spread([COUNT / t for t in times], "images/s")
            print(f"{size} px, {name}: {rate}; ours / this one: {min(times) / ours:.2f}")


main()
