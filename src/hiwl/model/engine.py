"""A network as ONNX Runtime runs it on a CPU: two to four times as fast as torch (benchmarks/results.txt).

``network.onnx`` holds the graph alone. Its numbers are those of the checkpoint beside it, so one graph serves a
checkpoint and its half-precision copy, and nothing is kept twice.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

INPUT, OUTPUTS = "inputs", ("logits", "features")


class Engine:
    """One network."""

    def __init__(self, graph: Path, weights: dict[str, Tensor], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # of warnings there is one for each number that is given here
        numbers = {name: _single(value) for name, value in weights.items() if value.is_floating_point()}
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(number) for number in numbers.values()]
        options.add_external_initializers(list(numbers), values)
        self._session = onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, children) and penultimate features (n, width) of (n, 3, size, size) inputs."""
        given = {INPUT: inputs.contiguous().numpy()}
        logits, features = self._session.run(OUTPUTS, given)
        return torch.from_numpy(logits), torch.from_numpy(features)


def _single(value: Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.ascontiguousarray(value.float().numpy())
