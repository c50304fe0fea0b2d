"""A CPU training step as hiwl sets it up against the plain eager loop, each in a process of its own, in turn.

And as many trainings side by side as there are cores, one thread each, against one with all of them.
"""

import os
import subprocess
import sys
import time
from statistics import median

from common import machine, spread

SIZE, BATCH, STEPS, ROUNDS = 64, 64, 24, 3


def measure(way: str) -> tuple[float, float]:
    """When `STEPS` steps of `tf_efficientnet_lite0` began and ended in this process, by the machine's clock."""
    import torch
    from lightning_fabric import Fabric

    from hiwl.core.memory import keep_freed_memory
    from hiwl.model.backbones import create
    from hiwl.training.small_maps import quicken_gradients

    if way in ("memory kept", "ours"):
        keep_freed_memory()
    model = create("tf_efficientnet_lite0", 5, "scratch", None).model
    inputs, target = torch.randn(BATCH, 3, SIZE, SIZE), torch.zeros(BATCH, dtype=torch.long)
    optimiser: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if way == "ours":
        quicken_gradients(model)
    if way != "plain":
        # As hiwl.training.trainer does it.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model, optimiser = Fabric(accelerator="cpu", devices=1).setup(model, optimiser)
        inputs = inputs.to(memory_format=torch.channels_last)
    model.train()

    def step() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), target).backward()
        optimiser.step()

    for _ in range(3):
        step()
    start = time.time()
    for _ in range(STEPS):
        step()
    return start, time.time()


def images_a_second(way: str, processes: int, threads: int) -> float:
    """Of so many processes at once, from when the first began to when the last ended."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if way != "plain":
        environment["OMP_WAIT_POLICY"] = "passive"  # as hiwl.cli sets it
    command = [sys.executable, __file__, way]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)]
    told = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit(f"{' '.join(command)}: failed, see above")
    begun, ended = zip(*(map(float, times.split()) for times in told), strict=True)
    seconds: float = max(ended) - min(begun)
    return processes * STEPS * BATCH / seconds


def main() -> None:
    print(machine(), f"tf_efficientnet_lite0, {SIZE} px, batch {BATCH}, {STEPS} steps a run")
    cores = os.cpu_count() or 1
    beside = {name: f"{name}, {cores} side by side, one thread each" for name in ("memory kept", "ours")}
    ways = {name: (name, 1, cores) for name in ("plain", "channels last", "memory kept", "ours")}
    ways |= {title: (name, cores, 1) for name, title in beside.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, how in ways.items():
            found[name].append(images_a_second(*how))
    middle = {name: median(speeds) for name, speeds in found.items()}
    for name, speeds in found.items():
        print(f"{name}: {spread(speeds, 'images/s')}")
    print(f"ratio ours / plain: {middle['ours'] / middle['plain']:.2f}")
    print(f"of it, keeping freed memory: {middle['memory kept'] / middle['channels last']:.2f}")
    print(f"of it, small maps by matrices: {middle['ours'] / middle['memory kept']:.2f}", end=", ")
    print(f"side by side: {middle[beside['ours']] / middle[beside['memory kept']]:.2f}")
    print(f"ratio side by side / ours: {middle[beside['ours']] / middle['ours']:.2f}")


if len(sys.argv) > 1:
    print(*measure(sys.argv[1]))
else:
    main()
