"""`hiwl classify` against the published code's way: Pillow, torchvision's transforms, the eager network, one picture at
a time, every layer and every view. With `small`, and with the paper's tree of B1 at 240 px (untrained, as fast).

What bounds it is printed too: decoding alone, and the networks' multiply-adds at the rate of this machine's matrix
product.
"""

import contextlib
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from hiwl.core.sums import write_sums
from hiwl.model.torchvision_mend import mend_torchvision

mend_torchvision()
from torchvision import transforms

from common import galaxies, in_folder, machine, seconds, spread
from hiwl.model import backbones
from hiwl.model.answer import Model
from hiwl.model.classifier import Classifier, Node
from hiwl.model.pixels import decode
from hiwl.training.export import export
from hiwl.verbs.classify import main as classify

REPEATS, THEIRS, OURS = 3, 24, 512


def paper(folder: Path) -> Path:
    """The paper's tree of two B1s at 240 px, untrained."""
    tree = {"root": ["CRS", "IBS", "SPI", "narrow"], "narrow": ["CSS", "EO"]}
    nodes = {}
    for name, children in tree.items():
        (folder / name).mkdir()
        torch.manual_seed(1)
        network = backbones.create("efficientnet_b1", len(children), "scratch", None).model
        save_file(network.state_dict(), folder / name / "w.safetensors")
        node = {"node": name, "children": children, "backbone": "efficientnet_b1", "input": 240}
        nodes[name] = node | {"mean": [0.046, 0.041, 0.03], "std": [0.09, 0.075, 0.065], "file": "w.safetensors"}
        export(Node(nodes[name], folder / name / "w.safetensors", torch.device("cpu")))
    shares = {"CRS": 6749, "IBS": 6455, "SPI": 6245, "EO": 3122, "CSS": 463}
    choice = {"hierarchy": tree, "crop": 256, "side": 240, "shares": shares, "views": 1, "routing": "hard"}
    (folder / "choice.json").write_text(json.dumps(choice | {"temperatures": dict.fromkeys(tree, 1.0), "nodes": nodes}))
    write_sums(folder)
    return folder


@torch.inference_mode()
def published(classifier: Classifier, files: list[Path]) -> list[str]:
    """The answers by the published code's way."""
    from PIL import Image

    pack, answers = classifier.pack, []
    node = classifier.nodes["root"]
    steps = [transforms.CenterCrop(pack.crop), transforms.Resize(pack.side, antialias=True), transforms.ToTensor()]
    prepare = transforms.Compose([*steps, transforms.Normalize(node.preprocess.mean, node.preprocess.std)])
    for file in files:
        picture = prepare(Image.open(file).convert("RGB"))[None]
        seen = {}
        for name, one in classifier.nodes.items():
            turned = [picture.rot90(number % 4, (2, 3)) for number in range(classifier.views)]
            seen_by = [one.flip(3) if number >= 4 else one for number, one in enumerate(turned)]
            logits = torch.cat([one.model(inputs) for inputs in seen_by])
            seen[name] = (logits / classifier.temperatures[name]).softmax(1).mean(0)
        child = classifier.tree.nodes["root"][int(seen["root"].argmax())]
        answers.append(classifier.tree.nodes[child][int(seen[child].argmax())] if child in seen else child)
    return answers


def compare(name: str, folder: Path, files: list[Path]) -> None:
    """Interleaved, so that what else the machine does meets both."""
    model = Model.load(folder)
    published(model.classifier, files[:2])
    theirs, ours, answers = [], [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        answers = published(model.classifier, files[:THEIRS])
        theirs.append(THEIRS / (time.perf_counter() - start))
        start = time.perf_counter()
        found = model(files)
        ours.append(len(files) / (time.perf_counter() - start))
    same = float(np.mean(np.array(answers) == found["answer"].to_numpy()[:THEIRS]))
    print(f"{name}: classify {spread(ours, 'images/s')}, published {spread(theirs, 'images/s')}")
    print(
        f"{name}: ratio {spread([a / b for a, b in zip(ours, theirs, strict=True)], 'times')}, {same:.0%} equal answers"
    )
    views = found["views"].astype(float)
    print(f"{name}: {views.mean():.2f} views on average, {(views > 1).mean():.0%} asked again")
    node = model.classifier.nodes["root"]
    images = torch.randint(0, 256, (64, *(2 * [model.classifier.pack.side]), 3), dtype=torch.uint8)
    rows = np.arange(len(images))
    engine, eager = (seconds(partial(node.ask, images, rows, by=by), 3) for by in (node.by_engine, node.by_torch))
    print(f"{name}: OpenVINO / torch, batches: {spread([b / a for a, b in zip(engine, eager, strict=True)], 'times')}")
    side = node.preprocess.size
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model.classifier.nodes["root"].model(torch.zeros(1, 3, side, side))
    work = counted.get_total_flops() * views.mean()
    print(f"{name}: bound by its multiply-adds {peak() / work:.0f} images/s")


def peak() -> float:
    """Floating-point operations a second of a large matrix product."""
    left = torch.rand(2048, 2048)
    left @ left
    start = time.perf_counter()
    for _ in range(3):
        left @ left
    return 3 * 2 * 2048**3 / (time.perf_counter() - start)


def main() -> None:
    kind, pictures = galaxies(OURS)
    print(machine(), f"{OURS} {kind}")
    with tempfile.TemporaryDirectory() as scratch:
        files = in_folder(pictures, Path(scratch, "pictures"))
        Path(scratch, "b1").mkdir()
        compare("small", Path("pretrained/small"), files)
        compare("B1 at 240 px, two layers", paper(Path(scratch, "b1")), files[:96])
        params = Classifier.load(Path("pretrained/small"), "cpu").pack
        start = time.perf_counter()
        for file in files:
            decode(file.read_bytes(), params)
        print(f"decoding alone, one thread: {OURS / (time.perf_counter() - start):.0f} images/s")
        start = time.perf_counter()
        with contextlib.chdir(scratch):  # it says where it writes
            classify(["pictures"], "a.parquet", weights="small", alpha=0.05, scale=1.0, arcsec=None, radius=None)
        print(f"the command on {OURS}, start and table included: {OURS / (time.perf_counter() - start):.0f} images/s")


main()
