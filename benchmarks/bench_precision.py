"""A training step on a CPU in mixed precision (HIWL_PRECISION=bf16-mixed) against single, of several backbones."""

import os
import time

from common import machine, spread

BACKBONES = {"tf_efficientnet_lite0": 64, "resnet34": 64, "resnet50": 64, "zhu_resnet26": 64, "dieleman": 45}
BATCH, STEPS, ROUNDS = 64, 4, 3


def main() -> None:
    import torch
    from lightning_fabric import Fabric

    from hiwl.core.memory import keep_freed_memory
    from hiwl.model.backbones import create

    keep_freed_memory()
    fast = torch.cpu._is_avx512_bf16_supported()
    print(machine(), f"{'with' if fast else 'without'} AVX512-BF16, batch {BATCH}, {STEPS} steps a run")

    def images_a_second(name: str, precision: str) -> float:
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        network = create(name, 5, "scratch", None).model.train()
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model, optimiser = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9))
        inputs = torch.randn(BATCH, 3, BACKBONES[name], BACKBONES[name]).to(memory_format=torch.channels_last)
        target = torch.zeros(BATCH, dtype=torch.long)
        started = 0.0
        for number in range(2 + STEPS):
            if number == 2:
                started = time.perf_counter()
            optimiser.zero_grad()
            fabric.backward(torch.nn.functional.cross_entropy(model(inputs).float(), target))
            optimiser.step()
        return STEPS * BATCH / (time.perf_counter() - started)

    for name in BACKBONES:
        found: dict[str, list[float]] = {"32-true": [], "bf16-mixed": []}
        for _ in range(ROUNDS):
            for precision, speeds in found.items():
                speeds.append(images_a_second(name, precision))
        ratios = [mixed / single for single, mixed in zip(*found.values(), strict=True)]
        print(f"{name}: {spread(found['bf16-mixed'], 'images/s')} against {spread(found['32-true'], 'images/s')}")
        print(f"{name}, ratio bf16-mixed / 32-true: {spread(ratios, 'times')}")


os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as hiwl.cli sets it
main()
