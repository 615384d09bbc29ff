"""Work done by a pool of Ray actors, on one machine or many.

What a task is and how it is done is the caller's; here tasks are only handed out and their results
taken in. An actor that dies, with its process or its machine, is replaced, and the task that it was
at is done again.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jacobi_forcing.config import check
from jacobi_forcing.errors import ConfigError, ModelError

Work = Callable[[str], Iterator[str]]


class _Actor:
    """One process of the pool."""

    def __init__(self, make: Callable[..., Work], *arguments: Any):
        self.work = make(*arguments)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"result": [result for task in batch["task"] for result in self.work(task)]}


def require_ray() -> None:
    """Raise ConfigError where Ray is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--engine ray: cannot import Ray ({error}). Install 'jacobi-forcing[ray]'."
        ) from error


def in_actors(
    make: Callable[..., Work],
    arguments: Sequence[Any],
    tasks: Sequence[str],
    *,
    num_actors: int,
    num_cpus: int,
    use_gpus: bool,
) -> Iterator[str]:
    """Do every task in some actor, and yield their results in any order.

    The cluster is the one that RAY_ADDRESS names, else this machine.

    Args:
        make: Called once in every actor with `arguments`; gives a function that takes a task and
            yields its results. It must be importable on every machine.
        arguments: For `make`.
        tasks: What is to do.
        num_actors: 0 takes one per GPU, or one where none is used.
        num_cpus: CPUs that each actor takes.
        use_gpus: Whether each actor takes a GPU, where the cluster has some.

    Raises:
        ConfigError: The cluster is too small.
        ModelError: The actors failed.
    """
    import ray.data
    from ray.exceptions import RayError

    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING)
    found = ray.cluster_resources()
    num_gpus = int(found.get("GPU", 0)) if use_gpus else 0
    size = num_actors or num_gpus or 1
    has_room = size <= (num_gpus or size) and size * num_cpus <= found["CPU"]
    check(
        has_room,
        f"--num-engines: {size} engines need {size * num_cpus} CPUs and a GPU each where there are "
        f"some, but the Ray cluster has {found['CPU']:g} CPUs and {num_gpus} GPUs. Take fewer.",
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    rows = ray.data.from_items([{"task": t} for t in tasks], override_num_blocks=len(tasks))
    results = rows.map_batches(
        _Actor,
        fn_constructor_args=(make, *arguments),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=num_cpus,
        num_gpus=1 if num_gpus else 0,
    )
    try:
        for row in results.iter_rows():
            yield row["result"]
    except RayError as error:
        # Of the tracebacks that it carries, the last exception that is not Ray's own.
        named = re.findall(r"^(?!ray\.)[\w.]+(?:Error|Exception)\b.*$", str(error), re.MULTILINE)
        what = (named or [type(error).__name__])[-1].rstrip(".")
        raise ModelError(
            f"--engine ray: an engine failed: {what}. What was finished is kept: run the same "
            "command again to continue."
        ) from error
