"""A CPU training step as hiwl takes it against the plain eager loop, each in a process of its own, in turn.

And as many trainings side by side as there are cores, one thread each, against one with all of them.
"""

import os
import subprocess
import sys
import time
from statistics import median

from common import machine, spread

SIZE, BATCH, STEPS, ROUNDS = 64, 64, 12, 3


def measure(way: str) -> float:
    """Images a second of `tf_efficientnet_lite0` in this process."""
    import torch

    import hiwl  # noqa: F401
    from hiwl.backbone import create
    from hiwl.memory import keep_freed_memory

    if way == "ours":
        keep_freed_memory()
    model = create("tf_efficientnet_lite0", 5, "scratch", None).model.train()
    inputs, target = torch.randn(BATCH, 3, SIZE, SIZE), torch.zeros(BATCH, dtype=torch.long)
    if way != "plain":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = inputs.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), target).backward()
        optimiser.step()

    for _ in range(3):
        step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return STEPS * BATCH / (time.perf_counter() - start)


def main() -> None:
    print(machine(), f"tf_efficientnet_lite0, {SIZE} px, batch {BATCH}, {STEPS} steps a run")
    found: dict[str, list[float]] = {"plain": [], "channels last": [], "ours": []}
    for _ in range(ROUNDS):
        for name, speeds in found.items():
            done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
            speeds.append(float(done.stdout))
    for name, speeds in found.items():
        print(f"{name}: {spread(speeds, 'images/s')}")
    print(f"ratio ours / plain: {median(found['ours']) / median(found['plain']):.2f}")
    share = median(found["ours"]) / median(found["channels last"])
    print(f"of it, keeping freed memory (ours / channels last): {share:.2f}")
    together = [side_by_side() for _ in range(ROUNDS)]
    print(f"one thread each, {os.cpu_count()} side by side: {spread(together, 'images/s')}")
    print(f"ratio side by side / ours: {median(together) / median(found['ours']):.2f}")


def side_by_side() -> float:
    """Images a second of all of them."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "ours"]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(os.cpu_count() or 1)
    ]
    return sum(float(process.communicate()[0]) for process in started)


if len(sys.argv) > 1:
    print(measure(sys.argv[1]))
else:
    main()
