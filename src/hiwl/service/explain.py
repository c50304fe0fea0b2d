"""Where a network looked: a Grad-CAM of one picture."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from hiwl.measure.gradcam import grad_cam

SHOWN = 224  # pixels


def explain(model: Any, content: bytes) -> bytes | None:
    """The picture in `content` as the root sees it, and where it looked for its answer, side by side, as PNG.

    None where `content` is no picture. `model` is a served `Model`, of whatever version.
    """
    pixels = model.decoded(content)
    if pixels is None:
        return None
    node = model.classifier.nodes["root"]
    seen = node.preprocess.centre(torch.from_numpy(pixels[None].copy()))
    inputs = node.preprocess(torch.from_numpy(pixels[None].copy()))
    with torch.no_grad():
        target = node.model(inputs).argmax(dim=1)
    maps, _ = grad_cam(node.model, inputs, target)
    heat = maps["fine"][0].numpy()
    heat = heat / max(float(heat.max()), 1e-9)
    shown = seen[0].numpy()
    tinted = shown * (1 - 0.5 * heat[..., None]) + np.array([255, 120, 0]) * (0.5 * heat[..., None])
    both = Image.fromarray(np.concatenate([shown, tinted.astype(np.uint8)], axis=1))
    buffer = io.BytesIO()
    both.resize((2 * SHOWN, SHOWN), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
