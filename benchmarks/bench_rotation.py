"""How far one bilinear sampling is from the published chain: with its nearest-neighbour rotation, and with a bilinear.

Mean absolute difference of pixels (0 to 255) on pictures of the competition's size and kind, the same parameters drawn.
"""

from hiwl.model.torchvision_mend import mend_torchvision

mend_torchvision()

# isort: split
import io

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from common import jpegs
from hiwl.model.preprocess import Preprocess
from hiwl.training.augment import augment, draw
from hiwl.training.params import AugmentParams

PARAMS = AugmentParams(rotation=25, scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3), flip=0.0)
COUNT = 40


def main() -> None:
    whole = [Image.open(io.BytesIO(content)).crop((84, 84, 340, 340)) for content in jpegs(COUNT)]
    for side, size in ((256, 240), (64, 64)):
        small = [np.asarray(picture.resize((side, side), Image.Resampling.BOX)) for picture in whole]
        batch = torch.from_numpy(np.stack(small))
        draws = draw(COUNT, side, PARAMS, torch.Generator().manual_seed(1))
        ours = augment(batch, draws, Preprocess(size, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)))
        for rotation in (InterpolationMode.NEAREST, InterpolationMode.BILINEAR):
            differences = []
            for row in range(COUNT):
                picture = tv.rotate(batch[row].permute(2, 0, 1), float(draws.angle[row]), rotation)
                box = [int(value[row]) for value in (draws.top, draws.left, draws.height, draws.width)]
                theirs = tv.resized_crop(picture, *box, size=[size, size])
                differences.append((ours[row] - theirs.float()).abs().mean().item())
            print(f"{size} px, {rotation.value} rotation: {np.mean(differences):.2f} of 255 (n = {COUNT})")


main()
