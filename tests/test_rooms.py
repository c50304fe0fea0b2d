"""How the package is built: which folder may import which, and how large a function's list of parameters may be."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hiwl"
# From the ground up: what stands on a floor imports from its own and from those below.
FLOORS = [
    {"core"},
    {"model"},
    {"survey"},
    {"training", "measure"},
    {"stages", "service"},
    {"params.py"},
    {"studies"},
    {"verbs"},
    {"cli.py", "__init__.py"},
]
FILES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if {room, f"{room}.py"} & rooms)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_folder_imports_from_the_floors_below_alone(file: Path) -> None:
    own = file.parts[0]
    for node in ast.walk(ast.parse((SOURCE / file).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hiwl."):
            room = str(node.module).split(".")[1]
            assert floor(room) <= floor(own), f"{file} imports {node.module}"
            assert room == own or floor(room) < floor(own), f"{file} imports {node.module}, on the same floor"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_function_has_more_than_six_parameters(file: Path) -> None:
    for node in ast.walk(ast.parse((SOURCE / file).read_text())):
        if isinstance(node, ast.FunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [one.arg for one in every if one.arg not in ("self", "cls")]
            assert len(named) <= 6, f"{file}: {node.name}({', '.join(named)})"
