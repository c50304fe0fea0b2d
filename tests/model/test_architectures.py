import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hiwl.model.architectures import ARCHITECTURES, dieleman, zhu_resnet26

SIDES = {"dieleman": 45, "zhu_resnet26": 64}
names = pytest.mark.parametrize("name", ARCHITECTURES)


def make(name: str, classes: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return ARCHITECTURES[name](classes)


def shapes(model: nn.Module, side: int) -> dict[str, tuple[int, ...]]:
    """The shape of what each layer gives for one picture."""
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> None:
        model.get_submodule(name).register_forward_hook(
            lambda _layer, _inputs, output: seen.__setitem__(name, tuple(output.shape[1:]))
        )

    for name, _ in model.named_modules():
        note(name)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    return seen


def layers(model: nn.Module, kind: type[nn.Module]) -> dict[str, nn.Module]:
    """Of one kind, on the main path alone."""
    return {key: layer for key, layer in model.named_modules() if isinstance(layer, kind) and "shortcut" not in key}


@names
@pytest.mark.parametrize("change", [-5, 0, 7, 19])
def test_any_input_near_the_nominal_gives_a_logit_a_class(name: str, change: int) -> None:
    model = make(name, 5).eval()
    side = SIDES[name] + change
    with torch.no_grad():
        logits = model(torch.randn(2, 3, side, side))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_dielemans_smallest_input_is_as_documented() -> None:
    model = dieleman(2).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 33, 33)).shape == (1, 2)
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 3, 32, 32))


def test_dielemans_net_is_the_plain_one_at_45_pixels() -> None:
    model = dieleman(4)
    seen = shapes(model, 45)
    assert [seen[key] for key in layers(model, nn.Conv2d)] == [(32, 40, 40), (64, 16, 16), (128, 6, 6), (128, 4, 4)]
    assert [seen[key] for key in layers(model, nn.Flatten)] == [(512,)]
    assert [seen[key] for key in layers(model, nn.Linear)] == [(2048,), (2048,), (4,)]
    assert [seen[key] for key in layers(model, nn.MaxPool2d)] == [(32, 20, 20), (64, 8, 8)]
    four_by_four = torch.randn(2, 128, 4, 4)
    assert torch.equal(nn.AdaptiveMaxPool2d(2)(four_by_four), nn.MaxPool2d(2)(four_by_four))
    assert len(layers(model, nn.ReLU)) == 6
    assert [layer.p for layer in layers(model, nn.Dropout).values() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_zhus_net_has_26_layers_in_four_stages() -> None:
    model = zhu_resnet26(4)
    seen = shapes(model, 64)
    convolutions = layers(model, nn.Conv2d)
    assert len(convolutions) + len(layers(model, nn.Linear)) == 26
    stem, *rest = (seen[key] for key in convolutions)
    assert stem == (64, 64, 64)
    assert rest[1::3] == [(w, s, s) for w, s in ((64, 32), (128, 16), (256, 8), (512, 4)) for _ in range(2)]
    assert rest[2::3] == [(2 * w, s, s) for w, s in ((64, 32), (128, 16), (256, 8), (512, 4)) for _ in range(2)]
    drops = [layer.p for layer in layers(model, nn.Dropout).values() if isinstance(layer, nn.Dropout)]
    assert drops == [0.33] * 8
    shortcuts = [key for key, layer in model.named_modules() if isinstance(layer, nn.Conv2d) and "shortcut" in key]
    assert len(shortcuts) == 4


def test_zhus_blocks_start_activated_and_leave_the_shortcut_clear() -> None:
    """With its residual cut, a block of one shape passes its input through untouched, negative values included."""
    model = zhu_resnet26(2).eval()
    block = model.get_submodule("body.4")
    residual = layers(block, nn.Conv2d)["residual.7"]
    assert isinstance(residual, nn.Conv2d)
    nn.init.zeros_(residual.weight)
    features = torch.randn(2, 128, 8, 8)
    assert torch.equal(block(features.clone()), features)


@names
def test_gradients_reach_every_weight(name: str) -> None:
    model = make(name, 3)
    side = SIDES[name]
    cross_entropy(model(torch.randn(4, 3, side, side)), torch.tensor([0, 1, 2, 0])).backward()
    gradients = {key: weight.grad for key, weight in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in gradients.values())


def steps(name: str, seed: int, count: int) -> list[float]:
    """The losses while a new model learns to tell bright pictures from dark ones."""
    model = make(name, seed=seed).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    classes = torch.arange(8) % 2
    pictures: Tensor = 0.1 * torch.randn(8, 3, 40, 40) + (2.0 * classes - 1)[:, None, None, None]
    losses = []
    for _ in range(count):
        optimiser.zero_grad()
        loss = cross_entropy(model(pictures), classes)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@names
def test_a_few_steps_separate_two_trivial_classes(name: str) -> None:
    losses = steps(name, 0, 10)
    assert losses[-1] < 0.5 * losses[0]


@names
def test_the_seed_alone_decides_weights_and_training(name: str) -> None:
    assert steps(name, 1, 2) == steps(name, 1, 2) != steps(name, 2, 2)
