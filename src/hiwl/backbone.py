"""Any timm or torchvision classifier by name, from ImageNet weights or from scratch. Nothing here is silent."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from hiwl.errors import HiwlError
from hiwl.files import sha256

if TYPE_CHECKING:
    from torch import nn

SHA256 = re.compile(r"[0-9a-f]{64}")


class Backbone(NamedTuple):
    """A model and, in words, what its weights started from."""

    model: "nn.Module"
    started_from: str


def create(name: str, classes: int, pretrained: str, weights: Path | None) -> Backbone:
    """Make model `name` with `classes` outputs.

    `pretrained` is `scratch`; `hub` (timm's or torchvision's ImageNet weights over the network); or the SHA-256 of
    a safetensors file at `weights`, itself or as ``<weights>/<name>.safetensors``. The last layer is always new.

    Raises:
        HiwlError: no such model; weights that are missing, others than named, or that do not fit.
    """
    library = library_of(name)
    if pretrained == "scratch":
        return Backbone(_make(library, name, classes, False), "scratch")
    if pretrained == "hub":
        try:
            return Backbone(_make(library, name, classes, True), f"{library}'s ImageNet weights")
        except Exception as error:
            raise HiwlError(
                f"train.pretrained: no ImageNet weights of {name} could be had over the network ({error}). Give a "
                "safetensors file (HIWL_WEIGHTS) and its SHA-256 as train.pretrained, or train.pretrained: scratch."
            ) from None
    model = _make(library, name, classes, False)
    path = _find(name, pretrained, weights)
    _load_all_but_head(model, path)
    return Backbone(model, f"{path.name} (SHA-256 {pretrained[:12]})")


def library_of(name: str) -> Literal["timm", "torchvision"]:
    """Which library knows the model, timm first."""
    import timm
    import torchvision

    if timm.is_model(name):
        return "timm"
    if name in torchvision.models.list_models():
        return "torchvision"
    near = ", ".join(timm.list_models(f"*{name.split('_')[-1]}*")[:5]) or "see timm.list_models()"
    raise HiwlError(f"train.backbone: neither timm nor torchvision has a model {name!r}; near it: {near}")


def _make(library: str, name: str, classes: int, pretrained: bool) -> "nn.Module":
    import timm
    import torchvision

    if library == "timm":
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=classes)
        return model
    made: nn.Module = torchvision.models.get_model(name, num_classes=classes)
    if pretrained:
        whole = torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=True)
        _take_fitting(made, whole, name)
    return made


def _find(name: str, expected: str, weights: Path | None) -> Path:
    if not SHA256.fullmatch(expected):
        raise HiwlError(f"train.pretrained: {expected!r} is neither scratch, hub nor a SHA-256 (64 hex digits)")
    if weights is None:
        raise HiwlError(
            f"train.pretrained names a file of weights of {name}, but HIWL_WEIGHTS does not say where it is"
        )
    path = weights / f"{name}.safetensors" if weights.is_dir() else weights
    if not path.is_file():
        raise HiwlError(f"HIWL_WEIGHTS: {path}: not there. Give the weights of {name}, or train.pretrained: hub")
    if (found := sha256(path)) != expected:
        raise HiwlError(f"{path}: its SHA-256 is {found}, but train.pretrained is {expected}")
    return path


def _load_all_but_head(model: "nn.Module", path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise HiwlError(f"{path}: no safetensors file: {error}") from None
    _take_fitting(model, {key: value.float() for key, value in weights.items()}, str(path))


def _take_fitting(model: "nn.Module", weights: dict[str, "object"], source: str) -> None:
    """Load `weights`; only a last layer for other classes (a matrix and its bias) may differ, and stays new."""
    import torch

    own = model.state_dict()
    fitting = {k: v for k, v in weights.items() if isinstance(v, torch.Tensor) and k in own and v.shape == own[k].shape}
    left = {key.rpartition(".")[0] for key in own if key not in fitting and not key.endswith("num_batches_tracked")}
    if len(left) > 1 or set(weights) - set(own):
        odd = sorted(left | (set(weights) - set(own)))
        raise HiwlError(f"{source}: does not fit the model; {len(odd)} layers differ, first {', '.join(odd[:3])}")
    model.load_state_dict(fitting, strict=False)
