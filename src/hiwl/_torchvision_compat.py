"""Let the registry's torchvision (a CUDA build) import beside a CPU build of torch.

There, torchvision's compiled operators do not load, and its import fails because it describes operators that were
never defined. Declaring those two is enough for everything that hiwl uses. Nothing happens where they load.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # torch forgets a library's operators when it is collected


class _Finder(MetaPathFinder):
    """Steps in once, just before torchvision is imported, so that start-up pays nothing for it."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            spec = PathFinder.find_spec("torchvision")
            if spec is not None and spec.origin is not None:
                _declare_missing_operators(Path(spec.origin).parent)
        return None


def _declare_missing_operators(package: Path) -> None:
    import torch

    try:
        for compiled in sorted(package.glob("_C*.so"))[:1]:
            torch.ops.load_library(str(compiled))
            return
    except OSError:
        pass
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + _SIGNATURE)
    _declared.append(library)


def install() -> None:
    """Watch for the first import of torchvision (on Linux, where the mismatch arises)."""
    if sys.platform == "linux" and "torchvision" not in sys.modules:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
