"""Keep the memory of one training step for the next."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # mallopt(3), <malloc.h>


def keep_freed_memory() -> None:
    """Tell glibc's malloc not to hand freed memory back to the system.

    A training step on a CPU frees and asks again for hundreds of megabytes, and fetching them as fresh zeroed pages
    each time is slow: together with channels-last tensors this more than doubles a step's speed
    (benchmarks/results.txt, bench_train). Does nothing on other systems.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 2**28)
        mallopt(_MMAP_MAX, 0)  # _MMAP_THRESHOLD goes to 32 MiB at most
