"""What the paper ("HIWL") and the papers it compares itself with report, to stand beside what is measured here."""

from typing import Any

import numpy as np

from hiwl.measure.metrics import measure

CLASSES = ["CRS", "IBS", "CSS", "EO", "SPI"]

# Table 2: galaxies of each class, in the order of CLASSES.
SPLITS = {
    "clean": [8434, 8069, 578, 3903, 7806],
    "training": [6747, 6455, 462, 3122, 6245],
    "validation": [843, 807, 58, 390, 780],
    "test": [844, 807, 58, 391, 781],
}

# The best validation accuracies of each layer's three kept checkpoints, and the epochs they were reached in.
CHECKPOINTS = {
    "root": [(0.9784, 90), (0.9802, 98), (0.9791, 120)],
    "narrow": [(0.9530, 47), (0.9508, 57), (0.9508, 62)],
}
VALIDATION_ACCURACY = 0.9722

# How many epochs each layer trained.
EPOCHS = {"root": 123, "narrow": 96}

# Test confusion of HIWL with EfficientNet-B1: rows true, in the order of CLASSES.
CONFUSION = np.array([[813, 26, 0, 0, 5], [25, 777, 0, 0, 5], [0, 6, 41, 11, 0], [0, 1, 11, 376, 3], [2, 8, 0, 3, 768]])

# Ablations: test accuracy, and the recall of each class in the order of CLASSES.
ABLATIONS = {
    "HIWL": (0.9632, [0.9633, 0.9628, 0.7069, 0.9616, 0.9834]),
    "SLWSLM": (0.9590, [0.9763, 0.9579, 0.6207, 0.9335, 0.9795]),
    "HMWS": (0.9604, [0.9668, 0.9616, 0.6724, 0.9437, 0.9821]),
}

# Table 7: "average accuracy" of ten backbones, without and with the method; the paper does not say over what.
BACKBONES = {
    "Dieleman": (0.9337, 0.9400),
    "ResNet-26": (0.9074, 0.9147),
    "VGG16": (0.9431, 0.9469),
    "GoogLeNet": (0.9480, 0.9507),
    "ResNet-34": (0.9507, 0.9597),
    "ResNet-50": (0.9469, 0.9497),
    "EfficientNet-B0": (0.9521, 0.9577),
    "EfficientNet-B1": (0.9542, 0.9612),
    "EfficientNet-B2": (0.9503, 0.9580),
    "ViT": (0.9264, 0.9451),
}

# Table 8: accuracies that other papers report, each on galaxies and classes of its own.
OTHERS = [
    ("ANN (Reza 2021)", 0.982, 4),
    ("HIWL, validation", VALIDATION_ACCURACY, 5),
    ("Jimenez 2020", 0.9643, 2),
    ("HIWL, test", 0.9632, 5),
    ("ResNet-26 (Zhu 2019)", 0.9521, 5),
    ("NODE-ACA (Gupta 2022)", 0.9500, 5),
    ("SC-Net (Zhang 2022)", 0.9470, 5),
    ("Silva & Ventura", 0.9401, 6),
    ("EfficientNet-B5 (Kalvankar 2020)", 0.9370, 7),
    ("layered CNN (Goyal 2020)", 0.8833, 3),
    ("ViT (Lin 2021)", 0.8121, 8),
]


# By what a study's cell may name as its `paper`: the accuracy that the paper reports of it.
ACCURACY = {name: accuracy for name, (accuracy, _) in ABLATIONS.items()} | {
    f"{backbone}, {kind}": accuracies[number]
    for backbone, accuracies in BACKBONES.items()
    for number, kind in enumerate(("plain", "method"))
}


def passes(part: str) -> int:
    """Galaxies of a part of its split that the paper's two layers looked at, over all epochs."""
    of_class = dict(zip(CLASSES, SPLITS[part], strict=True))
    seen = {"root": sum(of_class.values()), "narrow": of_class["CSS"] + of_class["EO"]}
    return sum(epochs * seen[node] for node, epochs in EPOCHS.items())


def paper_metrics() -> dict[str, Any]:
    """The paper's test figures, computed from its confusion matrix as ours are."""
    labels, said = np.array([cell for cell in np.ndindex(CONFUSION.shape) for _ in range(CONFUSION[cell])]).T
    metrics, table = measure(labels, said, CLASSES)
    return metrics | {"per_class": table.set_index("class").to_dict("index")}
