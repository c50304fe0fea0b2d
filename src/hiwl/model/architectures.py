"""The two networks of the paper's Table 7 that neither timm nor torchvision has; for backbones.py."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
BLOCKS = 2
WIDENING = 2
DROPOUT = 0.33


def dieleman(classes: int) -> nn.Module:
    """The plain net after Dieleman et al. (2015, MNRAS 450, 1441) in the paper's reading: no views, no maxout.

    From (n, 3, side, side), nominally 45 and at least 33 pixels, to (n, classes). No convolution is padded.
    """
    body = nn.Sequential(
        nn.Conv2d(3, 32, 6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(128, 128, 3),
        nn.ReLU(inplace=True),
        # From the 4 x 4 of a 45-pixel picture this is the plain 2 x 2 pool; from any other it leaves 2 x 2 too, so
        # that the dense layers fit every input size.
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * 2 * 128, 2048),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(2048, 2048),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
    )
    _initialise(body)
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(2048, classes)))


def zhu_resnet26(classes: int) -> nn.Module:
    """The ResNet-26 of Zhu et al. (2019, Ap&SS 364, 55), as far as the paper describes it.

    From (n, 3, side, side), nominally 64 pixels, to (n, classes). Given: a 6 x 6 convolution of 64,
    a pool, two pre-activated bottlenecks in each of four stages, widening by 2, dropout .33, global average pool.

    Left open, and chosen here:

    - the first convolution keeps the picture's size and the pool, a 2 x 2 maximum, halves it: at 64 pixels the four
      stages see 32, 16, 8 and 4, where a stride of 2 as in ResNet-50 would leave the last one 2;
    - a bottleneck of width w is w wide inside and `WIDENING` * w at its output, where ResNet-50 has 4 * w: 9.4 million
      weights (wide ResNet-50's reading, 2 * w inside and 8 * w at the output, would have 56 million);
    - dropout comes before the 3 x 3 convolution, after its rectifier (as in Zagoruyko and Komodakis 2016), and the
      stride is in that convolution (as in torchvision's ResNet);
    - where size or channels change, the shortcut is a 1 x 1 convolution of the activated input (He et al. 2016).
    """
    blocks: list[nn.Module] = []
    channels = 64
    for stage, width in enumerate(WIDTHS):
        for block in range(BLOCKS):
            blocks.append(_Bottleneck(channels, width, stride=2 if stage and not block else 1))
            channels = WIDENING * width
    body = nn.Sequential(
        nn.ZeroPad2d((2, 3, 2, 3)),  # what padding="same" does for an even kernel, without its warning
        nn.Conv2d(3, 64, 6, bias=False),
        nn.MaxPool2d(2),
        *blocks,
        nn.BatchNorm2d(channels),  # the blocks end in a sum that no later block would normalise
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    _initialise(body)
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(channels, classes)))


class _Bottleneck(nn.Module):
    """Normalise, rectify, convolve, thrice: 1 x 1 to `width`, 3 x 3, 1 x 1 to `WIDENING` * `width`; plus shortcut.

    From (n, channels, side, side) to (n, `WIDENING` * `width`, side / stride, side / stride), rounded up.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = WIDENING * width
        self.activate = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPOUT),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, out, 1, bias=False),
        )
        same = stride == 1 and channels == out
        self.shortcut = None if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        activated = self.activate(inputs)
        kept: Tensor = inputs if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.residual(activated)
        return kept + residual


def _initialise(body: nn.Module) -> None:
    """He et al. (2015), fan-out as in torchvision's ResNet, for every layer before a rectifier: not for the last."""
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {"dieleman": dieleman, "zhu_resnet26": zhu_resnet26}
