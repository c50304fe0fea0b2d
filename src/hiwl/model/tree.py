"""The tree of classes, and the one way in which anything is ever routed through it (paper, section 3.1).

A tree maps each node to its children; a child is a class, or another node. The paper's::

    root:   [CRS, IBS, SPI, narrow]
    narrow: [CSS, EO]

The flat model is the tree with one node.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from hiwl.core.errors import HiwlError
from hiwl.core.section import Section

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Routing = Literal["hard", "soft"]
ROOT = "root"
NAME = re.compile(r"[A-Za-z0-9_-]+")  # it becomes a folder, a DVC stage and a parameter


class HierarchyParams(Section):
    """Section `hierarchy`: a tree of classes (:class:`Tree`)."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """The folder of its nodes' models, so that trees stand side by side."""
    nodes: dict[str, list[str]]

    @field_validator("nodes")
    @classmethod
    def _is_a_tree(cls, nodes: dict[str, list[str]]) -> dict[str, list[str]]:
        try:
            return Tree(nodes).nodes
        except HiwlError as error:
            raise ValueError(str(error)) from None


class ChooseParams(Section):
    """Section `choose`: how the nodes of a tree are asked, on validation and ever after."""

    views: int = Field(1, ge=1, le=8)
    """Answers are averaged over so many of a picture's eight rotations and reflections."""
    routing: Routing = "hard"
    """`hard`: down the likeliest child (the paper); `soft`: products of probabilities over every way."""
    may_differ: float = Field(0.0, ge=0, le=1)
    """Where the first view leaves no doubt the others are not asked, which may change this share of validation answers
    at each node; 0: every picture is seen by every view."""
    calibrated: bool = False
    """Divide each node's logits by the temperature that fits its validation galaxies best."""


class Tree:
    """A checked tree of classes.

    Raises:
        HiwlError: a child twice, a node that nobody reaches or that reaches itself, a node with fewer than two
            children, no root.
    """

    def __init__(self, nodes: Mapping[str, list[str]]) -> None:
        _check_shape(nodes)
        self.nodes = {name: list(children) for name, children in nodes.items()}
        if ROOT not in self.nodes:
            raise HiwlError(f"hierarchy: there is no node {ROOT!r}; the nodes are {', '.join(self.nodes)}")
        seen: set[str] = {ROOT}
        for name, children in self.nodes.items():
            if len(children) < 2:
                raise HiwlError(f"hierarchy.{name}: needs at least two children, has {children}")
            for child in children:
                if child in seen:
                    raise HiwlError(f"hierarchy.{name}: {child!r} stands in the tree twice")
                seen.add(child)
        self.classes: list[str] = self.leaves(ROOT)
        reached = set(self.classes) | self._nodes_below(ROOT)
        if lost := [name for name in self.nodes if name not in reached]:
            raise HiwlError(f"hierarchy: no path from {ROOT!r} reaches {', '.join(map(repr, lost))}")

    def leaves(self, name: str) -> list[str]:
        """The classes at or below `name`, left to right."""
        if name not in self.nodes:
            return [name]
        return [leaf for child in self.nodes[name] for leaf in self.leaves(child)]

    def labels(self, node: str) -> dict[str, int]:
        """For every class below `node`, the index of the node's child under which it lies."""
        return {leaf: i for i, child in enumerate(self.nodes[node]) for leaf in self.leaves(child)}

    def ways(self) -> dict[str, list[str]]:
        """For every class the nodes from the root down to it, and the class."""
        found = {ROOT: [ROOT]}
        self._walk(ROOT, found)
        return {leaf: found[leaf] for leaf in self.classes}

    def _walk(self, name: str, found: dict[str, list[str]]) -> None:
        for child in self.nodes.get(name, []):
            found[child] = [*found[name], child]
            self._walk(child, found)

    def check_classes(self, found: set[str]) -> None:
        """Raise HiwlError unless the tree's classes are exactly the survey's."""
        if missing := sorted(found - set(self.classes)):
            raise HiwlError(f"hierarchy: the survey's class {', '.join(missing)} is missing from the tree")
        if extra := sorted(set(self.classes) - found):
            raise HiwlError(f"hierarchy: {', '.join(extra)} is neither a node nor a class of the survey")

    def _nodes_below(self, name: str) -> set[str]:
        children = [child for child in self.nodes[name] if child in self.nodes]
        return {name}.union(*(self._nodes_below(child) for child in children))


def _check_shape(nodes: object) -> None:
    """Raise HiwlError unless `nodes` maps names to lists of names."""
    if not isinstance(nodes, Mapping) or not nodes:
        raise HiwlError(f"hierarchy: expected a mapping of nodes to lists of their children, found {nodes!r}")
    for node, children in nodes.items():
        if not isinstance(children, list):
            raise HiwlError(f"hierarchy.{node}: expected a list of children, found {children!r}")
        for name in (node, *children):
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise HiwlError(f"hierarchy.{node}: {name!r} is not a name; use letters, digits, '-' and '_' (quoted)")


class Routed(NamedTuple):
    """Answers for n images over the tree's K classes."""

    label: Ints
    """(n,) index into `Tree.classes`: the class at the end of the route."""
    probabilities: Floats
    """(n, K), rows sum to 1."""
    routes: list[list[str]]
    """For each image the nodes that it passed and the class where it ended."""


def route(
    tree: Tree,
    probabilities_of: Callable[[str, Ints], Floats],
    count: int,
    shares: Mapping[str, float],
    routing: Routing = "hard",
) -> Routed:
    """Send `count` images through the tree.

    Hard (the paper): at each node on to its likeliest child, the earlier one on a tie. `probabilities_of(node, rows)`
    gives the node's probabilities, (len(rows), children), and is asked only for the images that reach the node. What a
    node gives to a child node that an image does not enter is shared out among the classes below by `shares` (their
    numbers in training): all that is known without paying for that node.

    Soft: every image through every node; a class's probability is the product along its way (p(narrow) x
    p(CSS | narrow)), and the likeliest class is the answer.
    """
    result = Routed(np.zeros(count, np.int64), np.zeros((count, len(tree.classes))), [[] for _ in range(count)])
    _Descent(tree, probabilities_of, shares, routing, result).descend(ROOT, np.arange(count), np.ones(count))
    if routing == "soft":
        result.label[:] = result.probabilities.argmax(axis=1)
        ways = tree.ways()
        for row, label in enumerate(result.label):
            result.routes[row].extend(ways[tree.classes[label]])
    return result


class _Descent(NamedTuple):
    tree: Tree
    probabilities_of: Callable[[str, Ints], Floats]
    shares: Mapping[str, float]
    routing: Routing
    result: Routed

    def descend(self, node: str, rows: Ints, reach: Floats) -> None:
        """Send the images `rows`, which reach `node` with probabilities `reach`, on from there."""
        if not len(rows):
            return
        tree, result = self.tree, self.result
        given = self.probabilities_of(node, rows)
        taken = given.argmax(axis=1)
        is_hard = self.routing == "hard"
        if is_hard:
            for row in rows:
                result.routes[row].append(node)
        for index, child in enumerate(tree.nodes[node]):
            chosen = taken == index
            reaching = reach * given[:, index]
            if child in tree.nodes:
                into = chosen if is_hard else np.full(len(rows), True)
                self.descend(child, rows[into], reaching[into])
                below = np.array([self.shares[leaf] for leaf in tree.leaves(child)])
                columns = [tree.classes.index(leaf) for leaf in tree.leaves(child)]
                result.probabilities[np.ix_(rows[~into], columns)] = np.outer(reaching[~into], below / below.sum())
            else:
                column = tree.classes.index(child)
                result.probabilities[rows, column] = reaching
                if is_hard:
                    result.label[rows[chosen]] = column
                    for row in rows[chosen]:
                        result.routes[row].append(child)
