"""A network as OpenVINO runs it on a CPU: several times as fast as torch, in single precision (benchmarks/results.txt).

``network.onnx`` holds the graph alone. Its numbers are inputs, which the checkpoint beside it fills: one graph serves
a checkpoint and its half-precision copy, and nothing is kept twice.
"""

from pathlib import Path

import openvino
import torch
from openvino import op
from torch import Tensor

INPUT, OUTPUTS = "inputs", ("logits", "features")
BATCH = 16  # more at a time do not stay in the processor's cache


class Engine:
    """One network."""

    def __init__(self, graph: Path, weights: dict[str, Tensor], threads: int) -> None:
        core = openvino.Core()
        network = core.read_model(graph)
        for parameter in network.get_parameters():
            if (name := parameter.get_friendly_name()) != INPUT:
                number = op.Constant(weights[name].float().contiguous().numpy())
                parameter.output(0).replace(number.output(0))
                network.remove_parameter(parameter)
        options = {
            "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the processor has it, and change answers
        }
        self._network = core.compile_model(network, "CPU", options)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, children) and penultimate features (n, width) of (n, 3, size, size) inputs."""
        request = self._network.create_infer_request()  # threads do not share one
        logits, features = [], []
        for part in inputs.contiguous().split(BATCH):
            said = request.infer([part.numpy()])
            logits.append(torch.from_numpy(said[0].copy()))
            features.append(torch.from_numpy(said[1].copy()))
        return torch.cat(logits), torch.cat(features)
