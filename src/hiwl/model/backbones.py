"""Any classifier of timm, torchvision or this package by name, from ImageNet weights or from scratch.

Nothing here is silent.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.layout import PRETRAINED
from hiwl.core.sums import SUMS, read_sums
from hiwl.model.features import last_layers
from hiwl.model.torchvision_mend import mend_torchvision

if TYPE_CHECKING:
    from torch import Tensor, nn

SHA256 = re.compile(r"[0-9a-f]{64}")


class Backbone(NamedTuple):
    """A model and, in words, what its weights started from."""

    model: "nn.Module"
    started_from: str


def create(
    name: str,
    classes: int,
    pretrained: str,
    weights: Path | None,
    head: str = "library",
    dimension: int | None = None,
) -> Backbone:
    """Make model `name` with `classes` outputs.

    `pretrained` is `scratch`; `hub` (the ImageNet weights that timm or torchvision takes today, over the network);
    `hub:<tag>` (those of timm's that have this tag); or the SHA-256 of a safetensors file, one of the published weights
    (``pretrained``) or at `weights`, itself or as ``<weights>/<name>.safetensors``. The last layer is always new:
    drawn as the `library` does, which for timm's EfficientNets is uniform in +- 1 / sqrt(classes) and so large that its
    first gradients spoil the weights before it; or as torch's `linear` layer, +- 1 / sqrt(features). With a
    `dimension` it is an embedding of so many numbers, and the classes' proxies.

    Raises:
        HiwlError: no such model; weights that are missing, others than named, or that do not fit; a last layer that
            cannot be an embedding.
    """
    library = library_of(name)
    if pretrained == "scratch":
        model = _make(library, name, classes, False)
        started_from = "scratch"
    elif pretrained == "hub" or pretrained.startswith("hub:"):
        tag = pretrained.removeprefix("hub").removeprefix(":")
        try:
            model = _make(library, f"{name}.{tag}" if tag else name, classes, True)
        except Exception as error:
            raise HiwlError(
                f"train.pretrained: ImageNet weights of {name} could not be downloaded ({error}). Give a "
                "safetensors file (HIWL_WEIGHTS) and its SHA-256 as train.pretrained, or train.pretrained: scratch."
            ) from None
        started_from = _said_of(model) if library == "timm" else f"{library}'s ImageNet weights"
    else:
        model = _make(library, name, classes, False)
        path = _find(name, pretrained, weights)
        _take_all_but_head(model, _read(path), name, str(path))
        started_from = f"{path.name} (SHA-256 {pretrained[:12]})"
    if head == "linear":
        for layer in last_layers(model):
            model.get_submodule(layer).reset_parameters()  # type: ignore[operator]
    if dimension is not None:
        _end_in_proxies(model, name, dimension, classes)
    return Backbone(model, started_from)


def normalisation(name: str, pretrained: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band, of values in [0, 1], as the library's weights of `name` have them:
    those of the tag, where `pretrained` is `hub:<tag>`."""
    mend_torchvision()
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.models import get_pretrained_cfg

    tag = pretrained.removeprefix("hub:") if pretrained.startswith("hub:") else ""
    said = get_pretrained_cfg(f"{name}.{tag}" if tag else name) if library_of(name) == "timm" else None
    return (said.mean, said.std) if said else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def _end_in_proxies(model: "nn.Module", name: str, dimension: int, classes: int) -> None:
    from torch import nn

    from hiwl.model.proxies import Proxies

    last = last_layers(model)
    has_more = hasattr(model, "aux1")  # GoogLeNet, whose auxiliary outputs are logits
    if len(last) > 1 or has_more or not isinstance(layer := model.get_submodule(last[0]), nn.Linear):
        raise HiwlError(f"train.recipe.loss: {name} does not end in one linear layer, so no distances can be learned")
    embedding = nn.Linear(layer.in_features, dimension)
    model.set_submodule(last[0], nn.Sequential(embedding, Proxies(dimension, classes)))


def _said_of(model: "nn.Module") -> str:
    """What timm says of the weights that it has just loaded."""
    said: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    parts = [said.get("hf_hub_id") or said.get("url"), said.get("license")]
    return f"{said['architecture']}.{said.get('tag')} ({', '.join(str(part) for part in parts if part)})"


def library_of(name: str) -> Literal["hiwl", "timm", "torchvision"]:
    """Who knows the model: this package, timm or torchvision, in this order."""
    mend_torchvision()
    import timm
    import torchvision

    from hiwl.model.architectures import ARCHITECTURES

    if name in ARCHITECTURES:
        return "hiwl"
    if timm.is_model(name):
        return "timm"
    if name in torchvision.models.list_models(module=torchvision.models):  # its classifiers alone
        return "torchvision"
    near = ", ".join(timm.list_models(f"*{name.split('_')[-1]}*")[:5]) or "see timm.list_models()"
    raise HiwlError(f"train.backbone: neither hiwl nor timm nor torchvision has a model {name!r}; near it: {near}")


def _make(library: str, name: str, classes: int, pretrained: bool) -> "nn.Module":
    mend_torchvision()
    import timm
    import torchvision

    if library == "hiwl":
        from hiwl.model.architectures import ARCHITECTURES

        if pretrained:
            raise LookupError("none were published")
        return ARCHITECTURES[name](classes)
    if library == "timm":
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=classes)
        return model
    # GoogLeNet trains with its auxiliary outputs (paper, Table 7); Inception's do not fit small pictures.
    own = {"googlenet": {"init_weights": True}, "inception_v3": {"aux_logits": False, "init_weights": True}}
    made: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **own.get(name, {}))
    if pretrained:
        whole = torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=True)
        _take_all_but_head(made, whole, name, "torchvision's weights")
    return made


def _find(name: str, expected: str, weights: Path | None) -> Path:
    if not SHA256.fullmatch(expected):
        raise HiwlError(
            f"train.pretrained: {expected!r} is neither scratch, hub, hub:<tag> nor a SHA-256 (64 hex digits)"
        )
    if published := _published(expected):
        return published
    if weights is None:
        raise HiwlError(
            f"train.pretrained names a file of weights of {name}, but HIWL_WEIGHTS does not say where it is"
        )
    path = weights / f"{name}.safetensors" if weights.is_dir() else weights
    if not path.is_file():
        raise HiwlError(f"HIWL_WEIGHTS: {path}: not found. Give the weights of {name}, or train.pretrained: hub")
    if (found := sha256(path)) != expected:
        raise HiwlError(f"{path}: its SHA-256 is {found}, but train.pretrained is {expected}")
    return path


def _published(expected: str) -> Path | None:
    """Where one of the published weights has this content."""
    for sums in sorted(PRETRAINED.glob(f"*/{SUMS}")):
        for name, content in read_sums(sums.parent).items():
            path = sums.parent / name
            if content == expected and path.is_file() and sha256(path) == expected:
                return path
    return None


def _read(path: Path) -> dict[str, "Tensor"]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {key: value.float() for key, value in load_file(path).items()}
    except SafetensorError as error:
        raise HiwlError(f"{path}: not a safetensors file: {error}") from None


def _take_all_but_head(model: "nn.Module", weights: dict[str, "Tensor"], name: str, source: str) -> None:
    """Load `weights` but for the last layer and auxiliary outputs, which stay new; the rest has to fit exactly."""
    heads = last_layers(model)

    def is_body(key: str) -> bool:
        is_head = any(key.startswith(f"{head}.") for head in heads)  # a single layer, or an embedding and its proxies
        return not (is_head or key.startswith("aux") or key.endswith("num_batches_tracked"))

    own = {key: value for key, value in model.state_dict().items() if is_body(key)}
    theirs = {key: value for key, value in weights.items() if is_body(key)}
    odd = sorted(key for key in own.keys() | theirs.keys() if key not in own or key not in theirs)
    odd += [key for key in own.keys() & theirs.keys() if own[key].shape != theirs[key].shape]
    if odd:
        raise HiwlError(f"{source}: does not fit {name}: {len(odd)} tensors differ, first {', '.join(odd[:3])}")
    model.load_state_dict(theirs, strict=False)
