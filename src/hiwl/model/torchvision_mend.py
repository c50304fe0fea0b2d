"""Let the registry's torchvision (a CUDA build) import beside a CPU build of torch.

There, torchvision's compiled operators do not load, and its import fails because it describes operators that were
never defined. Declaring those two is enough for everything that hiwl uses. Nothing happens where they load.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # torch forgets a library's operators when it is collected


def mend_torchvision() -> None:
    """Call it before torchvision, or what imports it (timm), is first imported."""
    if sys.platform != "linux" or "torchvision" in sys.modules or _declared:  # on Linux the mismatch arises
        return
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch

    try:
        for compiled in sorted(Path(spec.origin).parent.glob("_C*.so"))[:1]:
            torch.ops.load_library(str(compiled))
            return
    except OSError:
        pass
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + _SIGNATURE)
    _declared.append(library)
