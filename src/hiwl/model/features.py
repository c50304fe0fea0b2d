"""A network's last layer, and the penultimate features: what that layer takes in. A network that was trained for
distances ends in an embedding and proxies; its features are the embedding.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def last_layers(model: "nn.Module") -> tuple[str, ...]:
    """The names of the last layer; some of timm's models have two, and the first is the classifier's."""
    from torch import nn

    from hiwl.model.proxies import Proxies

    if proxies := tuple(name for name, layer in model.named_modules() if isinstance(layer, Proxies)):
        return proxies
    named = getattr(model, "default_cfg", {}).get("classifier")  # timm says it
    if named is None:
        named = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    return (named,) if isinstance(named, str) else tuple(named)


def width(model: "nn.Module") -> int:
    """How many penultimate features it has."""
    from torch import nn

    layer = model.get_submodule(last_layers(model)[0])
    taken = layer.in_features if isinstance(layer, nn.Linear) else next(layer.parameters()).shape[1]
    return int(taken)


@contextmanager
def penultimate(model: "nn.Module") -> "Iterator[list[Tensor]]":
    """Gather the penultimate features, (n, width), of every batch that this thread sends through `model` meanwhile.

    Where the last layer is a convolution (SqueezeNet), they are averaged over the picture.
    """
    parts: list[Tensor] = []
    asking = threading.get_ident()

    def take(layer: "nn.Module", inputs: "tuple[Tensor, ...]") -> None:
        if threading.get_ident() != asking:  # a service answers several requests by one network
            return
        values = inputs[0].float()
        parts.append(values.mean((2, 3)) if values.ndim == 4 else values)

    with model.get_submodule(last_layers(model)[0]).register_forward_pre_hook(take):
        yield parts
