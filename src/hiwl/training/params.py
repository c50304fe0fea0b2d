"""Section `train`: what is trained, and how (paper, sections 3 and 4.1).

Every part of a recipe has a neutral default, with which nothing is done; ``conf/recipe`` states what differs. A loss,
an optimiser or a sampling is known by its `kind`: another one is one more class here, and one more in
``training.losses`` (or wherever the part is made).
"""

from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from hiwl.core.errors import HiwlError
from hiwl.core.section import Section

if TYPE_CHECKING:
    from hiwl.model.tree import Tree

Head = Literal["library", "linear"]


class AugmentParams(Section):
    """Part `augment`: what a training picture goes through."""

    rotation: float = Field(0, ge=0, le=180)
    """Uniform in +- so many degrees; corners that come into view are black."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Area of the random crop as a share of the picture's."""
    ratio: tuple[float, float] = (1.0, 1.0)
    """Width by height of the random crop; its logarithm is uniform."""
    flip: float = Field(0, ge=0, le=1)
    """Probability of each of the two flips."""
    mirrors: dict[str, str] = Field({})
    """Classes that a mirror turns into each other, such as windings, {CW: ACW}: a picture seen in it gets the other."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} must rise within (0, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must rise from above 0")
        if len({*self.mirrors, *self.mirrors.values()}) < 2 * len(self.mirrors):
            raise ValueError(f"mirrors {self.mirrors} must name every class once")
        return self


class CrossEntropy(Section):
    """Cross-entropy with soft targets."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    smoothing: float = Field(0, ge=0, lt=1)
    """Share of the target that goes to the other classes (paper, section 3.3)."""
    smoothing_by: Literal["even", "similarity"] = "even"
    """How the others share it: evenly (the paper), or as the volunteers' votes did on average over the training
    galaxies of the class (the paper's future work; needs votes)."""
    votes: float = Field(0, ge=0, le=1)
    """Share of the target that is the volunteers' votes on the galaxy itself, where they are known."""
    teachers: float = Field(0, ge=0, le=1)
    """Share of the target that is what other models answer (`train.teachers`), where they do."""
    logit_adjustment: float = Field(0, ge=0)
    """So many times the logarithm of the classes' shares is added to the logits in training (Menon et al. 2021)."""


class Distances(Section):
    """What losses that learn distances have in common: hard labels, and an embedding instead of the last layer."""

    dimension: int = Field(128, gt=1)
    """Of the embedding."""


class ProxyNCA(Distances):
    """Nearer to the own class's proxy than to the others', which alone stand below the line (Movshovitz-Attias et al.
    2017, equation 4); squared distances of unit vectors."""

    kind: Literal["proxy_nca"] = "proxy_nca"
    scale: float = Field(2, gt=0)
    """Distances are multiplied by it. The loss has no floor, so a large scale is a large rate."""


class NormalisedSoftmax(Distances):
    """Cross-entropy of the cosines with the proxies (Zhai and Wu 2019)."""

    kind: Literal["normalised_softmax"] = "normalised_softmax"
    temperature: float = Field(0.05, gt=0)


class Contrastive(Distances):
    """Pairs of a class at no distance, others at least `margin` apart (Hadsell et al. 2006)."""

    kind: Literal["contrastive"] = "contrastive"
    margin: float = Field(1, gt=0)


class Triplet(Distances):
    """A galaxy nearer to one of its class than to one of another, by `margin` (Schroff et al. 2015)."""

    kind: Literal["triplet"] = "triplet"
    margin: float = Field(0.2, gt=0)


class MultiSimilarity(Distances):
    """Pairs weighed by how similar they are, among the others too (Wang et al. 2019); its own miner chooses them."""

    kind: Literal["multi_similarity"] = "multi_similarity"
    alpha: float = Field(2, gt=0)
    beta: float = Field(50, gt=0)
    base: float = Field(0.5)
    epsilon: float = Field(0.1, gt=0)
    """The miner's margin."""


Loss = CrossEntropy | ProxyNCA | NormalisedSoftmax | Contrastive | Triplet | MultiSimilarity


PRETRAINED = "pretrained"


class SGD(Section):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    """On every parameter."""


class Shuffled(Section):
    """Every sample once an epoch."""

    kind: Literal["shuffled"] = "shuffled"


class Weighted(Section):
    """As many draws with replacement as there are samples, each class as often as any other (paper, section 3.2)."""

    kind: Literal["weighted"] = "weighted"


class RecipeParams(Section):
    """Part `train.recipe`; a node may override any of it but the name (`train.nodes`)."""

    name: str
    epochs: int = Field(gt=0)
    """At most so many; also the length of the schedule."""
    patience: int | None = Field(None, gt=0)
    """Stop when for so many epochs neither the loss fell nor the validation accuracy rose; null: never."""
    stopping: Literal["validation", "training"] = "validation"
    """Which loss: the validation set's (the paper's text) or that of training (its published code)."""
    batch: int = Field(gt=1)
    start: str = PRETRAINED
    """The weights that all but the last layer starts from: `train.pretrained`, or those of the node above, as
    `<tree>/<node>`: its best checkpoint."""
    input: int | None = Field(None, gt=0)
    """Side of what the node sees; null: `train.input`."""
    learning_rate: float = Field(gt=0)
    """The highest rate of the schedule."""
    backbone_rate: float = Field(1, gt=0, le=1)
    """Share of the rate at which all but the last layer (or the embedding and its proxies) learns."""
    schedule: Literal["cosine", "one-cycle"] = "one-cycle"
    """Cosine to 0, stepped once an epoch (the paper); or a rise over the first quarter and a cosine to 0, stepped
    with every batch."""
    optimiser: SGD = SGD()
    sampling: Annotated[Shuffled | Weighted, Field(discriminator="kind")] = Shuffled()
    loss: Annotated[Loss, Field(discriminator="kind")] = CrossEntropy()
    answers: float = Field(0, ge=0)
    """Weight of a second loss: a layer beside the last one, which is not kept, answers all of the volunteers'
    questions, where a galaxy's votes are known (Walmsley et al. 2022)."""
    augment: AugmentParams = AugmentParams()
    mixup: float = Field(0, ge=0)
    """Two pictures and their targets are mixed in shares from Beta(mixup, mixup) (Zhang et al. 2018); 0: never."""
    averaging: float = Field(0, ge=0, lt=1)
    """Decay, per step, of the moving average of weights that is validated and kept; 0: the weights themselves."""

    @property
    def needs_votes(self) -> bool:
        """Whether the volunteers' votes are part of the targets."""
        loss = self.loss
        return isinstance(loss, CrossEntropy) and (loss.smoothing_by == "similarity" or loss.votes > 0)

    @property
    def has_teachers(self) -> bool:
        """Whether other models' answers are part of the targets."""
        return isinstance(self.loss, CrossEntropy) and self.loss.teachers > 0

    @property
    def dimension(self) -> int | None:
        """Of the embedding, where distances are learned."""
        return self.loss.dimension if isinstance(self.loss, Distances) else None

    @model_validator(mode="after")
    def _does_not_mix_what_has_one_label(self) -> Self:
        if self.mixup and self.dimension is not None:
            raise ValueError(f"mixup {self.mixup} mixes classes, which loss {self.loss.kind} cannot learn from; set 0")
        return self


class TrainParams(Section):
    """Section `train`."""

    seed: int = Field(ge=0)
    backbone: str
    """A classifier of timm, torchvision or hiwl."""
    pretrained: str
    """`scratch`, `hub`, `hub:<tag>` (timm's), or the SHA-256 of a safetensors file (setting HIWL_WEIGHTS)."""
    teachers: list[str] = Field([])
    """SHA-256 of the tables of answers that are learned from (setting HIWL_TEACHERS), as their mean."""
    head: Head
    """How the new last layer is drawn (:func:`hiwl.model.backbones.create`)."""
    input: int = Field(gt=0)
    """Side of what the model sees, at most `pack.side`: the centre, or the whole scaled (`preprocess.CUT`)."""
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Of each band, of values in [0, 1]."""
    keep: int = Field(gt=0)
    """How many checkpoints of a node compete in `choose`."""
    recipe: RecipeParams
    nodes: dict[str, dict[str, Any]]
    """For every node of the hierarchy its `start`, and what it does otherwise than `recipe`."""

    def recipe_of(self, node: str) -> RecipeParams:
        """The recipe with the node's own values."""
        if node not in self.nodes:
            raise HiwlError(f"train.nodes: {node} is missing; write '{node}: {{start: {PRETRAINED}}}'")
        own = self.nodes[node]
        if "name" in own:
            raise HiwlError(f"train.nodes.{node}.name: a recipe's name is the same for every node")
        return type(self.recipe).parse(merge(self.recipe.model_dump(), own), f"train.nodes.{node}")

    def input_of(self, node: str) -> int:
        """Side of what the node sees."""
        return self.recipe_of(node).input or self.input

    def check_nodes(self, tree: "Tree", name: str) -> None:
        """Raise HiwlError unless there is a sound recipe for every node of the `tree` called `name`, and no other."""
        if unknown := set(self.nodes) - set(tree.nodes):
            raise HiwlError(f"train.nodes: {', '.join(sorted(unknown))} is not a node of the hierarchy")
        if self.recipe.start != PRETRAINED:
            raise HiwlError("train.recipe.start: each node says what it starts from (train.nodes.<node>.start)")
        if self.teachers and not any(self.recipe_of(node).has_teachers for node in tree.nodes):
            raise HiwlError("train.teachers: no node learns from them; set train.recipe.loss.teachers, or name none")
        for node in tree.nodes:
            recipe = self.recipe_of(node)
            starts = [PRETRAINED, *(f"{name}/{above}" for above, children in tree.nodes.items() if node in children)]
            if recipe.start not in starts:
                raise HiwlError(f"train.nodes.{node}.start: {recipe.start!r} is none of {', '.join(starts)}")
            mirrors = recipe.augment.mirrors
            if unknown := {*mirrors, *mirrors.values()} - set(tree.classes):
                raise HiwlError(
                    f"train.recipe.augment.mirrors: {', '.join(sorted(unknown))} is not a class of the tree"
                )


def merge(base: Any, own: Any) -> Any:
    """`base` with `own` values: mappings are merged, but a part of another `kind` replaces the whole part."""
    if not isinstance(base, dict) or not isinstance(own, dict) or own.get("kind", base.get("kind")) != base.get("kind"):
        return deepcopy(own)
    return {**deepcopy(base), **{name: merge(base.get(name), value) for name, value in own.items()}}
