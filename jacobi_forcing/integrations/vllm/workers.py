"""Workers that let their runner tell the proposer; for who would not have a class of vLLM wrapped.

vllm serve MODEL --worker-cls jacobi_forcing.integrations.vllm.workers.JacobiGPUWorker ...
"""

from importlib import import_module
from typing import Any

from jacobi_forcing.integrations.vllm.hook import adopt


def _worker(home: str, name: str) -> type:
    """Make a worker of one of vLLM's, which is imported only where it is asked for."""
    plain = getattr(import_module(home), name)

    class JacobiWorker(plain):
        def init_device(self) -> None:
            super().init_device()
            adopt(self.model_runner)

    JacobiWorker.__name__ = JacobiWorker.__qualname__ = f"Jacobi{name}"
    return JacobiWorker


def __getattr__(name: str) -> Any:
    """Make the worker that is asked for by name."""
    homes = {
        "JacobiCPUWorker": ("vllm.v1.worker.cpu_worker", "CPUWorker"),
        "JacobiGPUWorker": ("vllm.v1.worker.gpu_worker", "Worker"),
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _worker(*homes[name])
