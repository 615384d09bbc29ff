"""Several processes, started by torchrun or accelerate, that train one model together."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import PartialState

from jacobi_forcing.config import TrainConfig, check
from jacobi_forcing.errors import JacobiForcingError

TIMEOUT = timedelta(hours=12)  # the others wait while the first one decodes its test
_SECONDS_FOR_THE_FIRST = 30


def join_processes(config: TrainConfig) -> PartialState:
    """Join the processes that were started together; this one alone is one, too.

    Raises:
        ConfigError: The settings do not suit that many processes.
    """
    on_cpu = config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())
    state = PartialState(cpu=on_cpu, timeout=TIMEOUT)
    if not state.is_main_process:
        logging.getLogger("jacobi_forcing").setLevel(logging.WARNING)
    with one_voice(state):
        check_processes(config, state.num_processes, on_cpu=on_cpu)
    return state


def check_processes(config: TrainConfig, count: int, *, on_cpu: bool) -> None:
    """Raise ConfigError where the settings do not suit `count` processes."""
    check(
        config.batch_size % count == 0,
        f"--batch-size is {config.batch_size}, which {count} processes cannot share evenly. Take a "
        f"multiple of {count}.",
    )
    check(
        count == 1 or config.device in ("auto", "cpu", "cuda"),
        f"--device is {config.device!r}, but there are {count} processes and each takes its own. "
        "Leave it out.",
    )
    wants_shards = config.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    check(
        not wants_shards or count > 1,
        "--fsdp shards a model over processes, but there is one. Start several: torchrun "
        "--nproc-per-node 2 -m jacobi_forcing train ...",
    )
    check(
        not wants_shards or not on_cpu,
        "--fsdp needs GPUs: on CPUs accelerate shards nothing and would train whole copies. Leave "
        "it (or use_fsdp in accelerate's configuration) out.",
    )


@contextmanager
def one_voice(state: PartialState) -> Iterator[None]:
    """Let the first process of a machine tell what went wrong, where all of them run into it.

    It ends by that, and the others are ended by what started them. One that is still there after a
    while ran into something of its own, and tells it.
    """
    try:
        yield
    except JacobiForcingError:
        if state.local_process_index > 0:
            time.sleep(_SECONDS_FOR_THE_FIRST)
        raise
