"""A network's last layer, and the penultimate features: what that layer takes in."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hiwl.model.classifier import Node
    from hiwl.model.tree import Ints


def last_layers(model: "nn.Module") -> tuple[str, ...]:
    """The names of the last layer; some of timm's models have two, and the first is the classifier's."""
    from torch import nn

    named = getattr(model, "default_cfg", {}).get("classifier")  # timm says it
    if named is None:
        named = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    return (named,) if isinstance(named, str) else tuple(named)


def features(node: "Node", images: "Tensor", rows: "Ints") -> npt.NDArray[np.float32]:
    """The node's penultimate features, (len(rows), width), of packed uint8 `images` at `rows`.

    Where the last layer is a convolution (SqueezeNet), they are averaged over the picture.
    """
    import torch

    parts: list[Tensor] = []

    def take(layer: "nn.Module", inputs: "tuple[Tensor, ...]") -> None:
        values = inputs[0].float()
        parts.append((values.mean((2, 3)) if values.ndim == 4 else values).cpu())

    layer = node.model.get_submodule(last_layers(node.model)[0])
    with layer.register_forward_pre_hook(take):
        node.logits(images, rows, views=1)
    result: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return result
