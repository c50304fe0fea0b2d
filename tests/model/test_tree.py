import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiwl.core.errors import HiwlError
from hiwl.model.tree import Floats, Ints, Routing, Tree, route

PAPER = {"root": ["CRS", "IBS", "SPI", "narrow"], "narrow": ["CSS", "EO"]}


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({"root": ["A", "B", "A"]}, "'A' stands in the tree twice"),
        ({"root": ["A", "low"], "low": ["A", "B"]}, "'A' stands in the tree twice"),
        ({"root": ["A", "B"], "low": ["C", "D"]}, "reaches 'low'"),
        ({"root": ["A", "B"], "low": ["deep", "C"], "deep": ["low", "D"]}, "reaches 'low', 'deep'"),
        ({"root": ["A", "root"]}, "'root' stands in the tree twice"),
        ({"root": ["A"]}, "at least two"),
        ({"top": ["A", "B"]}, "no node 'root'"),
        ({"root": "CRS"}, "hierarchy.root: expected a list"),
        ({"root": ["A", False]}, "hierarchy.root: False is not a name"),
        ({"root": ["A", "b/c"], "b/c": ["D", "E"]}, "'b/c' is not a name"),
        (["A"], "expected a mapping"),
    ],
)
def test_a_wrong_tree_is_told_so_by_name(nodes: Any, said: str) -> None:
    with pytest.raises(HiwlError, match=said):
        Tree(nodes)


def test_classes_that_tree_and_survey_do_not_share_are_named() -> None:
    with pytest.raises(HiwlError, match="EO is missing"):
        Tree({"root": ["CRS", "CSS"]}).check_classes({"CRS", "CSS", "EO"})
    with pytest.raises(HiwlError, match="XYZ is neither"):
        Tree({"root": ["CRS", "XYZ"]}).check_classes({"CRS"})


def test_labels_of_a_node_point_to_the_child_above_each_class() -> None:
    tree = Tree(PAPER)
    assert tree.classes == ["CRS", "IBS", "SPI", "CSS", "EO"]
    assert tree.labels("root") == {"CRS": 0, "IBS": 1, "SPI": 2, "CSS": 3, "EO": 3}
    assert tree.labels("narrow") == {"CSS": 0, "EO": 1}


def test_only_images_that_the_first_layer_sends_on_reach_the_second() -> None:
    first = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6], [0.0, 0.0, 0.0, 1.0]])
    second = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    asked: dict[str, list[int]] = {}

    def answer(node: str, rows: Ints) -> Floats:
        asked[node] = rows.tolist()
        found: Floats = (first if node == "root" else second)[rows]
        return found

    tree = Tree(PAPER)
    routed = route(tree, answer, 3, {"CSS": 1, "EO": 4})
    assert asked == {"root": [0, 1, 2], "narrow": [1, 2]}
    assert [tree.classes[label] for label in routed.label] == ["CRS", "CSS", "EO"]
    assert routed.routes == [["root", "CRS"], ["root", "narrow", "CSS"], ["root", "narrow", "EO"]]
    # Image 0 never entered `narrow`: its .1 is shared out 1:4. Image 1 did: .6 x .8 and .6 x .2.
    assert routed.probabilities[0] == pytest.approx([0.7, 0.1, 0.1, 0.02, 0.08])
    assert routed.probabilities[1] == pytest.approx([0.1, 0.1, 0.2, 0.48, 0.12])


def test_soft_routing_asks_every_node_and_can_answer_what_hard_routing_cannot() -> None:
    # Narrow is less likely than CRS, but hard routing never hears how sure the second node is.
    given_by = {"root": [[0.40, 0.20, 0.02, 0.38]], "narrow": [[0.99, 0.01]]}
    tree = Tree(PAPER)
    hard, soft = (
        route(tree, lambda node, rows: np.array(given_by[node])[rows], 1, {"CSS": 1, "EO": 4}, routing)
        for routing in ("hard", "soft")
    )
    assert [tree.classes[routed.label[0]] for routed in (hard, soft)] == ["CRS", "CRS"]
    assert soft.probabilities[0] == pytest.approx([0.40, 0.20, 0.02, 0.38 * 0.99, 0.38 * 0.01])
    given_by["root"] = [[0.37, 0.25, 0.0, 0.38]]
    given_by["narrow"] = [[0.5, 0.5]]
    hard, soft = (
        route(tree, lambda node, rows: np.array(given_by[node])[rows], 1, {"CSS": 1, "EO": 4}, routing)
        for routing in ("hard", "soft")
    )
    assert [tree.classes[routed.label[0]] for routed in (hard, soft)] == ["CSS", "CRS"]
    assert soft.routes == [["root", "CRS"]]


def test_an_equal_choice_goes_to_the_earlier_child() -> None:
    routed = route(Tree({"root": ["A", "B"]}), lambda node, rows: np.full((len(rows), 2), 0.5), 1, {"A": 1, "B": 1})
    assert routed.label.tolist() == [0]


@st.composite
def trees(draw: st.DrawFn) -> dict[str, list[str]]:
    names = iter(f"n{i}" for i in range(100))
    nodes: dict[str, list[str]] = {}

    def grow(name: str, depth: int) -> None:
        children = [next(names) for _ in range(draw(st.integers(2, 3)))]
        nodes[name] = children
        for child in children:
            if depth < 3 and draw(st.booleans()):
                grow(child, depth + 1)

    grow("root", 0)
    return nodes


@given(trees(), st.integers(0, 20), st.integers(0, 1000), st.sampled_from(["hard", "soft"]))
def test_any_tree_gives_every_image_a_class_and_probabilities_that_sum_to_one(
    nodes: dict[str, list[str]], count: int, seed: int, routing: Routing
) -> None:
    rng = np.random.default_rng(seed)
    tree = Tree(nodes)
    given_by = {name: rng.dirichlet(np.ones(len(children)), count) for name, children in nodes.items()}
    routed = route(tree, lambda node, rows: given_by[node][rows], count, dict.fromkeys(tree.classes, 1), routing)
    assert routed.probabilities.sum(axis=1) == pytest.approx(np.ones(count))
    for label, path in zip(routed.label, routed.routes, strict=True):
        assert path[-1] == tree.classes[label]
        assert all(below in nodes[above] for above, below in itertools.pairwise(path))
    if routing == "soft":
        assert (routed.label == routed.probabilities.argmax(axis=1)).all()
    # A row's answer does not depend on the rows beside it.
    if count:
        alone = route(tree, lambda node, rows: given_by[node][rows], 1, dict.fromkeys(tree.classes, 1), routing)
        assert alone.label[0] == routed.label[0]
