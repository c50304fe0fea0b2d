"""The graph of a trained network, for the engine that answers on CPUs (`hiwl.model.engine`)."""

import io
import warnings

import torch
from torch import Tensor, nn

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing
from hiwl.model.classifier import GRAPH, Node
from hiwl.model.engine import INPUT, OUTPUTS
from hiwl.model.features import penultimate
from hiwl.model.tree import Ints

TOLERANCE = 1e-4  # of logits
OWN = "network."  # how the exporter calls what is of `_Graph.network`


class _Graph(nn.Module):
    """A network that gives its penultimate features beside its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        with penultimate(self.network) as parts:
            logits = self.network(inputs)
        return logits, parts[0]


def export(node: Node) -> None:
    """Write ``network.onnx``, the graph of the node's network, beside its checkpoint, which fills its numbers in."""
    import onnx

    size, network = node.preprocess.size, node.model
    node.checkpoint.with_name(GRAPH).unlink(missing_ok=True)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # torch's newer exporter takes half a minute where this one takes two seconds.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _Graph(network).eval(),
                (torch.zeros(2, 3, size, size),),
                content,  # type: ignore[arg-type]  # a file will do
                dynamo=False,
                # The checkpoint's numbers stay as they are, neither folded into others nor shared where they are equal.
                do_constant_folding=False,
                keep_initializers_as_inputs=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_axes={name: {0: "n"} for name in (INPUT, *OUTPUTS)},
            )
        except torch.onnx.OnnxExporterError as error:
            print(f"{node.checkpoint.parent.name}: torch answers; {str(error).splitlines()[0]}")
            return
    model = onnx.load_from_string(content.getvalue())
    model.graph.name, model.producer_version = "network", ""
    numbers = {name for name, value in network.state_dict().items() if value.is_floating_point()}
    there = {value.name for value in model.graph.input}
    if lacking := numbers - {name.removeprefix(OWN) for name in there}:
        print(f"{node.checkpoint.parent.name}: torch answers; a graph would lack {', '.join(sorted(lacking)[:3])}")
        return
    kept = [value for value in model.graph.initializer if value.name.removeprefix(OWN) not in numbers]
    inputs = [value for value in model.graph.input if value.name.removeprefix(OWN) in {INPUT, *numbers}]
    del model.graph.initializer[:], model.graph.input[:]
    model.graph.initializer.extend(kept)
    model.graph.input.extend(inputs)
    for value in model.graph.input:
        value.name = value.name.removeprefix(OWN)
    for operation in model.graph.node:
        operation.input[:] = [name.removeprefix(OWN) for name in operation.input]
    with replacing(node.checkpoint.with_name(GRAPH)) as beside:
        beside.write_bytes(model.SerializeToString(deterministic=True))


def check_export(node: Node, images: Tensor, rows: Ints) -> float:
    """The greatest difference between logits by torch and by the engine, of packed uint8 `images` at `rows`.

    Raises:
        HiwlError: it is above 1e-4, or an answer differs.
    """
    if not len(rows) or not node.checkpoint.with_name(GRAPH).exists():
        return 0.0  # torch answers
    engine, network = (node.ask(images, rows, by=network).logits[0] for network in (node.by_engine, node.by_torch))
    difference = float((engine - network).abs().max())
    changed = int((engine.argmax(1) != network.argmax(1)).sum())
    if changed or difference > TOLERANCE:
        raise HiwlError(
            f"{node.checkpoint.parent.name}: OpenVINO answers otherwise than torch: {changed} of {len(rows)} "
            f"answers, logits by up to {difference:.1e} (at most {TOLERANCE:.0e}). Nothing was registered"
        )
    return difference
