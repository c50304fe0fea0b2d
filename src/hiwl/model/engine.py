"""A network as OpenVINO runs it on a CPU: several times as fast as torch, in single precision (benchmarks/results.txt).

``network.onnx`` holds the graph alone. Its numbers are inputs, which the checkpoint beside it fills: one graph serves
a checkpoint and its half-precision copy, and nothing is kept twice.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiwl.model.pixels import Pixels
from hiwl.model.preprocess import Preprocess

INPUT, OUTPUTS = "inputs", ("logits", "features")
BATCH = 16  # more at a time do not stay in the processor's cache


class Engine:
    """One network."""

    def __init__(self, graph: Path, weights: dict[str, Tensor], preprocess: Preprocess, threads: int) -> None:
        import openvino  # which a machine that answers on its GPU does not need
        from openvino import Layout, Type, op
        from openvino.preprocess import PrePostProcessor

        core = openvino.Core()
        network = core.read_model(graph)
        for parameter in network.get_parameters():
            if (name := parameter.get_friendly_name()) != INPUT:
                number = op.Constant(weights[name].float().contiguous().numpy())
                parameter.output(0).replace(number.output(0))
                network.remove_parameter(parameter)
        steps = PrePostProcessor(network)
        steps.input(INPUT).tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
        steps.input(INPUT).model().set_layout(Layout("NCHW"))
        steps.input(INPUT).preprocess().convert_element_type(Type.f32).mean(
            [255 * mean for mean in preprocess.mean]
        ).scale([255 * std for std in preprocess.std])
        options = {
            "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the processor has it, and change answers
        }
        self._network = core.compile_model(steps.build(), "CPU", options)

    def __call__(self, pictures: Pixels) -> tuple[Tensor, Tensor]:
        """Logits (n, children) and penultimate features (n, width) of (n, size, size, 3) uint8 pictures."""
        request = self._network.create_infer_request()  # threads do not share one
        logits, features = [], []
        for start in range(0, len(pictures), BATCH):
            said = request.infer([pictures[start : start + BATCH]], share_inputs=True)
            logits.append(said[0].copy())
            features.append(said[1].copy())
        return torch.from_numpy(np.concatenate(logits)), torch.from_numpy(np.concatenate(features))
