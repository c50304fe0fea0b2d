"""Where a network looked: a Grad-CAM of one picture."""

import copy
import io
import threading
from typing import Any

import numpy as np
import torch
from PIL import Image

from hiwl.measure.gradcam import grad_cam

SHOWN = 224  # pixels
ONE = threading.Lock()  # the network is made when it is first asked for


def explain(model: Any, content: bytes) -> bytes | None:
    """The picture in `content` as the root sees it, and where it looked for its answer, side by side, as PNG.

    None where `content` is no picture.
    """
    pixels = model.decoded(content)
    if pixels is None:
        return None
    node = model.classifier.nodes["root"]
    seen = node.preprocess.centre(torch.from_numpy(pixels[None].copy()))
    inputs = node.preprocess(torch.from_numpy(pixels[None].copy()).to(node.device))
    with ONE:
        network = copy.deepcopy(node.model)  # Grad-CAM listens at its layers, where others may be asking
    with torch.no_grad():
        target = network(inputs).argmax(dim=1)
    maps, _ = grad_cam(network, inputs, target)
    heat = maps["fine"][0].cpu().numpy()
    heat = heat / max(float(heat.max()), 1e-9)
    shown = seen[0].numpy()
    tinted = shown * (1 - 0.5 * heat[..., None]) + np.array([255, 120, 0]) * (0.5 * heat[..., None])
    both = Image.fromarray(np.concatenate([shown, tinted.astype(np.uint8)], axis=1))
    buffer = io.BytesIO()
    both.resize((2 * SHOWN, SHOWN), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
