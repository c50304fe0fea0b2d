"""The paper's complete training as a measurement on one GPU: hiwl's step against the plain eager loop, and the whole.

Speed depends on neither weights nor pictures, so a model from scratch learns random ones, which lie on the device.
The whole is training and validation; it leaves out reading the pack, checkpoints and MLflow. `--small` shows on any
machine, in about a minute, that this runs; its numbers mean nothing.
"""

import argparse
import gc
import io
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from statistics import median
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from common import machine, seconds, spread
from hiwl.model.backbones import create
from hiwl.model.classifier import predict
from hiwl.model.preprocess import Preprocess
from hiwl.studies.paper import passes
from hiwl.studies.plan import compose
from hiwl.training.data import NodeData
from hiwl.training.params import TrainParams
from hiwl.training.trainer import Trainer

CLASSES = 4  # of the first layer, nine tenths of the work
TRAINED, VALIDATED = passes("training"), passes("validation")
PARAMS = compose(["backbone=b1", "recipe=paper", "hierarchy=flat"])


class Size(NamedTuple):
    """How much is measured."""

    backbone: str
    input: int
    side: int
    """Of the packed pictures."""
    batches: list[int]
    pictures: int
    """At least so many, in at least ten steps, are an epoch here."""
    epochs: int
    copied: int
    """Bytes of the copy that measures bandwidth."""
    ways: list[tuple[Any, bool]]
    """Precision, and whether compiled."""


# The way to train first: a borrowed GPU may be gone before the last.
WAYS = [("bf16-mixed", True), ("bf16-mixed", False), ("32-true", True), ("32-true", False)]
PAPER = Size(
    PARAMS["train"]["backbone"], PARAMS["train"]["input"], PARAMS["pack"]["side"], [24, 256], 2400, 5, 2**32, WAYS
)
SMALL = Size("test_resnet", 32, 36, [8], 80, 2, 2**24, [("32-true", True), ("bf16-mixed", False)])


class Work(NamedTuple):
    """What one picture asks for, at the least."""

    flop: int
    """Of the forward pass."""
    numbers: int
    """That convolutions and linear layers read and write in both passes, each once: forward input and output, backward
    input, the output's gradient and the input's gradient. All else is taken to be fused into them."""
    parameters: int

    def bytes(self, size: Size, batch: int, precision: str) -> float:
        """Memory traffic of one picture in a training step: activations, parameters, the picture itself."""
        width = 2 if precision == "bf16-mixed" else 4
        # Weights are read in both passes; SGD reads and writes them and the momentum, and the gradient was written.
        parameters = self.parameters * (2 * width + 6 * 4) / batch
        return self.numbers * width + parameters + 3 * size.side**2 + 3 * size.input**2 * 4


def work_of(size: Size) -> Work:
    model = create(size.backbone, CLASSES, "scratch", None).model.eval()
    numbers = 0

    def count(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal numbers
        numbers += given[0].numel() * (3 if given[0].requires_grad else 2) + output.numel() * 2

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, size.input, size.input))
    return Work(counter.get_total_flops(), numbers, sum(value.numel() for value in model.parameters()))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget() -> None:
    """Give back what the last measurement held."""
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()


def bandwidth(size: Size, device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.randint(0, 256, (size.copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        wait(device)

    return 2 * size.copied / median(seconds(copy, 10))


def plain(size: Size, batch: int, steps: int, device: torch.device) -> list[float]:
    """Images a second of the plain eager loop: float32, contiguous, pictures ready as tensors on the device."""
    model = create(size.backbone, CLASSES, "scratch", None).model.to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9, weight_decay=1e-4)
    inputs = torch.randn(batch, 3, size.input, size.input, device=device)
    target = torch.randint(0, CLASSES, (batch,), device=device)

    def epoch() -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            cross_entropy(model(inputs), target).backward()
            optimiser.step()
        wait(device)

    return [steps * batch / t for t in seconds(epoch, size.epochs)]


def waits(work: Callable[[], Any]) -> int:
    """How often the host waits for the GPU in `work`."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


class Measured(NamedTuple):
    """One way of hiwl's step."""

    speeds: list[float]
    """Images a second, an epoch each."""
    validation: float
    """Images a second."""
    first: float
    """Seconds that the first epoch took longer: compilation, graphs, cuDNN's choice of algorithms."""
    waits: int | None
    """How often the host waits for the GPU in an epoch."""


def ours(size: Size, batch: int, steps: int, precision: Any, compiled: bool) -> Measured:
    """hiwl's own epoch: augmentation, forward, backward, SGD."""
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)
    own = {"pretrained": "scratch", "backbone": size.backbone, "input": size.input}
    recipe = PARAMS["train"]["recipe"] | {"batch": batch}
    params = TrainParams.parse(PARAMS["train"] | own | {"recipe": recipe, "nodes": {"root": {}}}, "train")
    count, shape = steps * batch, (size.side, size.side, 3)
    data = NodeData(
        images=torch.randint(0, 256, (count, *shape), dtype=torch.uint8, device=fabric.device),
        rows={"training": torch.arange(count, device=fabric.device)},
        labels={"training": torch.randint(0, CLASSES, (count,))},
        votes=None,
        teachers=None,
        answers=None,
        children=[str(number) for number in range(CLASSES)],
        shares={},
        sources={},
    )
    module = create(size.backbone, CLASSES, "scratch", None).model
    trainer = Trainer(fabric, module, data, params, "root", compiled)
    preprocess = Preprocess(params.input, params.mean, params.std)

    def epoch() -> float:
        with redirect_stderr(io.StringIO()):  # progress
            return trainer.epoch()["seconds"]

    def validate() -> None:
        predict(module, data.images, data.rows["training"], preprocess, fabric.device)
        wait(fabric.device)

    started = time.perf_counter()
    epoch()
    first = time.perf_counter() - started
    taken = [epoch() for _ in range(size.epochs)]
    waited = waits(epoch) if fabric.device.type == "cuda" else None
    validation = count / median(seconds(validate, 3))
    return Measured([count / t for t in taken], validation, first - median(taken), waited)


def main() -> None:
    parser = argparse.ArgumentParser(description="The paper's complete training as a measurement on one GPU.")
    parser.add_argument("--small", action="store_true", help="show that it runs, also without a GPU")
    parser.add_argument("--batch", type=int, nargs="+", help="sizes of batches; default 24 (the paper's) and 256")
    given = parser.parse_args()
    size = SMALL if given.small else PAPER
    if not given.small and not torch.cuda.is_available():
        print("no GPU here; --small shows that this runs")
        return
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    work, copied = work_of(size), bandwidth(size, device)
    print(machine(), f"torch {torch.__version__}, {name}")
    print(f"{size.backbone}, {size.input} of {size.side} px; copy {copied / 1e9:.4g} GB/s, read and written, n = 10")
    print(f"forward pass of a picture: {work.flop / 1e9:.4g} GFLOP; {work.parameters / 1e6:.4g} M parameters")

    batches = given.batch or size.batches
    steps = {batch: max(10, size.pictures // batch) for batch in batches}
    # Before hiwl sets this process up for speed.
    base = {batch: plain(size, batch, steps[batch], device) for batch in batches}
    for batch in batches:
        print(f"\nbatch {batch}, plain, 32-true: {spread(base[batch], 'images/s')}, {steps[batch]} steps each")
        for precision, compiled in size.ways:
            forget()
            found = ours(size, batch, steps[batch], precision, compiled)
            speed, needed = median(found.speeds), work.bytes(size, batch, precision)
            minutes = (TRAINED / speed + VALIDATED / found.validation) / 60
            print(f"batch {batch}, hiwl, {precision}, {'compiled' if compiled else 'eager'}:", end=" ")
            print(spread(found.speeds, "images/s"))
            print(f"  ratio hiwl / plain: {speed / median(base[batch]):.2f}")
            print(f"  {1000 * batch / speed:.4g} ms a step; {3 * work.flop * speed / 1e12:.4g} TFLOP/s of the model")
            print(f"  at least {needed / 1e6:.4g} MB of memory traffic an image:", end=" ")
            print(f"{needed * speed / copied:.1%} of the copy's bandwidth")
            if found.waits is not None:
                print(f"  the host waits for the GPU {found.waits} times in an epoch of {steps[batch]} steps")
            print(
                f"  the paper's training: {minutes:.4g} min, and for each node {found.first:.3g} s of compilation",
                end=" ",
            )
            print(
                f"and the like ({TRAINED:,} images; {VALIDATED:,} validated at {found.validation:.4g} a second)",
                flush=True,
            )


main()
