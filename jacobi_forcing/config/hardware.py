"""What estimates take GPUs for: figures from their makers, and the throughput that is assumed."""

from typing import NamedTuple


class Gpu(NamedTuple):
    """A GPU by its data sheet."""

    memory_mib: int  # as nvidia-smi shows it
    flops: float  # dense bfloat16, 1/s


# NVIDIA's data sheets of the SXM modules.
GPUS = {
    "A100": Gpu(81920, 312e12),
    "H100": Gpu(81559, 989e12),
    "H200": Gpu(143771, 989e12),
    "B200": Gpu(183359, 2250e12),
}
USABLE_RATIO = 0.93  # of memory: the rest is the CUDA context's, and fragments
