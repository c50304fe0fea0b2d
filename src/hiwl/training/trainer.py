"""The training of one node, an epoch at a time (paper, section 4.1)."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributions import Beta
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import digest
from hiwl.model.classifier import predict
from hiwl.model.features import last_layers
from hiwl.model.preprocess import Preprocess
from hiwl.training import augment
from hiwl.training.data import NodeData, epoch_order
from hiwl.training.distances import ByPairs, ByProxies
from hiwl.training.learner import Learner
from hiwl.training.losses import Loss, Output, SoftCrossEntropy, WithAnswers, mix
from hiwl.training.params import CrossEntropy, NormalisedSoftmax, ProxyNCA, RecipeParams, TrainParams
from hiwl.training.schedule import learning_rate
from hiwl.training.small_maps import quicken_gradients


class Trainer:
    """A node's model, its optimiser and its history; on each of several processes, which share every batch."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        data: NodeData,
        params: TrainParams,
        node: str,
        compiled: bool = False,
    ) -> None:
        """Take `model` to the device of `fabric`; the weights stay in it, under its own names."""
        self.params, self.node, self.recipe = params, node, params.recipe_of(node)
        self.history: list[dict[str, float]] = []
        """One row an epoch."""
        self._fabric = fabric
        self._mine = slice(fabric.global_rank, None, fabric.world_size)
        more = self.recipe.answers > 0 or self.recipe.dimension is not None
        learner = Learner(model, self.recipe.answers > 0) if more else model
        self._loss = _loss_of(self.recipe, data, model, fabric.device)
        on_gpu = fabric.device.type == "cuda"
        if fabric.device.type == "cpu" and not compiled:
            quicken_gradients(learner)
        # The rate is set before every step.
        sgd = self.recipe.optimiser
        optimiser = torch.optim.SGD(
            _groups(learner, model, self.recipe),
            momentum=sgd.momentum,
            weight_decay=sgd.weight_decay,
            fused=on_gpu or None,
        )
        trained: Any = learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compiled:
            # Not among several processes: there CUDA graphs do not take batch normalisation's buffers
            # (pytorch/pytorch#139207).
            graphs = on_gpu and fabric.world_size == 1
            trained = torch.compile(trained, mode="reduce-overhead" if graphs else None)
        self._model, self._optimiser = fabric.setup(trained, optimiser)
        # What does not learn answers as it ever will: batch normalisation by what it has counted.
        self._still = [layer for layer in learner.modules() if _is_still(layer)]
        self._states: dict[str, Any] = {"model": learner, "optimiser": self._optimiser}
        self._kept, self._after_step = model, _nothing  # what is validated and kept; what is done after each step
        if self.recipe.averaging:
            average = get_ema_multi_avg_fn(self.recipe.averaging)
            averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
            self._states["averaged"] = averaged
            self._kept, self._after_step = averaged.module, partial(averaged.update_parameters, model)
        images = _near(data.images, fabric)
        rows = {name: of_split.to(images.device) for name, of_split in data.rows.items()}
        self._data = data._replace(images=images, rows=rows)
        self._preprocess = Preprocess(params.input_of(node), params.mean, params.std)
        self._in_mirror = torch.tensor(augment.mirrored_order(self.recipe.augment, data.children), dtype=torch.long)

    def epoch(self) -> dict[str, float]:
        """One pass; what is drawn in it depends on the seed, the node and the epoch alone.

        Raises:
            HiwlError: the loss is not finite.
        """
        recipe, data, device, epoch = self.recipe, self._data, self._fabric.device, len(self.history)
        generator = torch.Generator().manual_seed(seed_of(self.params.seed, self.node, epoch + 1))
        torch.manual_seed(generator.initial_seed())  # for dropout and mixing
        order = self._order(generator)
        # All that a step needs lies on the device before it, or is copied there without waiting: on a GPU the steps are
        # handed over faster than they are done.
        rows = data.rows["training"]
        batches = [batch[self._mine] for batch in rows[order.to(rows.device)].split(recipe.batch)]
        targets = self._loss.targets("training")[order.to(device)].split(recipe.batch)
        self._model.train()
        for layer in self._still:
            layer.eval()
        started, total = time.perf_counter(), torch.zeros((), device=device)
        for step, (pictures, target) in enumerate(self._progress(batches, targets)):
            rate = learning_rate(recipe, epoch, step, len(batches))
            for group in self._optimiser.param_groups:
                group["lr"] = rate * group["share"]
            whole = len(target)
            # Drawn for the whole batch, so that what is drawn does not depend on the number of processes; each takes
            # its share. (Batch normalisation sees a process's own share only, so results do depend on it a little.)
            draws = augment.draw(whole, data.images.shape[1], recipe.augment, generator).part(self._mine)
            inputs = augment.augment(pictures, draws, self._preprocess)
            target = self._seen_in_mirrors(target[self._mine], draws.is_mirror)
            if recipe.mixup:
                inputs, target = mix(inputs, target, float(Beta(recipe.mixup, recipe.mixup).sample()))
            self._optimiser.zero_grad(set_to_none=True)  # first: a CUDA graph writes the next gradients into these
            # The epoch's last batch may be smaller; it is not worth compiling for once more.
            with torch.compiler.set_stance("default" if whole == recipe.batch else "force_eager"):
                said = self._model(inputs)
                loss = self._loss(said if isinstance(said, Output) else Output(said), target)
            self._fabric.backward(loss)
            self._optimiser.step()
            self._after_step()
            total += loss.detach() * len(target)
        summed = self._summed(total)
        if not torch.isfinite(summed):
            raise HiwlError(
                f"train@{self.node}: the loss of epoch {epoch + 1} is not finite; lower train.recipe.learning_rate"
            )
        seconds = time.perf_counter() - started
        return {
            "training_loss": summed.item() / len(order),
            "learning_rate": rate,
            "seconds": seconds,
            "images_per_second": len(order) / seconds,
        }

    def validate(self) -> dict[str, float]:
        """Loss and accuracy of what is kept, on the validation set."""
        data, device = self._data, self._fabric.device
        rows, labels = data.rows["validation"], data.labels["validation"]
        started = time.perf_counter()
        logits = predict(self._kept, data.images, rows[self._mine], self._preprocess, device)
        right = (logits.argmax(dim=1) == labels[self._mine].to(device)).sum()
        sums = torch.stack([self._loss.validation(logits, self._mine), right.float()])
        loss, accuracy = (self._summed(sums) / len(labels)).tolist()
        return {
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "validation_seconds": time.perf_counter() - started,
        }

    def weights(self) -> dict[str, Tensor]:
        """What is validated and kept, by the model's own names."""
        return {name: value.contiguous() for name, value in self._kept.state_dict().items()}

    @property
    def hardware(self) -> dict[str, str]:
        """What it runs on, for the record."""
        device = self._fabric.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        return {"device": name, "processes": str(self._fabric.world_size)}

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, beside parameters, data and code."""
        return {name: part.state_dict() for name, part in self._states.items()} | {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, to the same bits (on a CPU, with as many threads)."""
        for name, part in self._states.items():
            part.load_state_dict(state[name])
        self.history = state["history"]

    def _seen_in_mirrors(self, target: Tensor, is_mirror: Tensor) -> Tensor:
        """The targets, of pictures in a mirror those of what they are there."""
        if not len(self._in_mirror):
            return target
        rest = torch.arange(len(self._in_mirror), target.shape[1])  # what volunteers said beside it
        swapped = target[:, torch.cat([self._in_mirror, rest]).to(target.device)]
        return torch.where(is_mirror.to(target.device)[:, None], swapped, target)

    def _order(self, generator: torch.Generator) -> Tensor:
        """The epoch's rows; without a last batch so small that batch normalisation has not two pictures a process."""
        batch, order = self.recipe.batch, epoch_order(self._data.labels["training"], self.recipe.sampling, generator)
        rest = len(order) % batch
        return order[: len(order) - rest] if rest < 2 * self._fabric.world_size and len(order) > batch else order

    def _progress(self, batches: list[Tensor], targets: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures and targets of each batch, on the device, under a bar of progress."""
        pictures = _pictures(self._data.images, batches, self._fabric.device)
        return iter(
            tqdm(
                zip(pictures, targets, strict=True),
                total=len(batches),
                desc=f"{self.node} epoch {len(self.history) + 1}",
                unit="batch",
                disable=self._fabric.global_rank > 0,
            )
        )

    def _summed(self, values: Tensor) -> Tensor:
        summed = self._fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed


def _loss_of(recipe: RecipeParams, data: NodeData, network: nn.Module, device: torch.device) -> Loss:
    loss: Loss
    match recipe.loss:
        case CrossEntropy():
            loss = SoftCrossEntropy(recipe.loss, data, device)
        case ProxyNCA() | NormalisedSoftmax():
            loss = ByProxies(recipe.loss, data, device)
        case _:
            loss = ByPairs(recipe.loss, data, device, network)
    return WithAnswers(loss, recipe.answers, data, device) if recipe.answers else loss


def seed_of(seed: int, node: str, epoch: int) -> int:
    """The seed for one epoch of one node; epoch 0: of the model's new weights."""
    return int(digest([seed, node, epoch])[:12], 16)


def _groups(learner: nn.Module, model: nn.Module, recipe: RecipeParams) -> list[dict[str, Any]]:
    """What began from weights, which learns at so large a share of the rate; and what is new, at all of it."""
    names = [name.rpartition(".")[0] if recipe.dimension else name for name in last_layers(model)]
    new = {id(parameter) for name in names for parameter in model.get_submodule(name).parameters()}
    new |= {id(parameter) for parameter in learner.parameters()} - {id(parameter) for parameter in model.parameters()}
    backbone = [parameter for parameter in learner.parameters() if id(parameter) not in new]
    rest = [parameter for parameter in learner.parameters() if id(parameter) in new]
    return [{"params": backbone, "share": recipe.backbone_rate}, {"params": rest, "share": 1.0}]


def _is_still(layer: nn.Module) -> bool:
    learned = [parameter.requires_grad for parameter in layer.parameters()]
    return bool(learned) and not any(learned)


def _nothing() -> None:
    pass


def _near(images: Tensor, fabric: Fabric) -> Tensor:
    """The images on the device where they fit into half of its free memory, else where they are."""
    if fabric.device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(fabric.device)[0] / 2:
        return images.to(fabric.device)
    return images


def _pictures(images: Tensor, batches: list[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The pictures of each batch of rows, on the device; to a GPU the next are fetched while one batch is at work."""
    if device.type != "cuda" or images.device == device:
        yield from (images[rows].to(device) for rows in batches)
        return

    def fetch(rows: Tensor) -> Tensor:
        return images[rows].pin_memory()

    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(fetch, batches[0])
        for following in batches[1:]:
            fetched, coming = coming.result(), thread.submit(fetch, following)
            yield fetched.to(device, non_blocking=True)
        yield coming.result().to(device, non_blocking=True)
