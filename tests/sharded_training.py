"""Run by torchrun in two processes (see test_processes): a whole `jacobi train --fsdp`, on CPUs.

accelerate shards on kinds of machine that it lists, and CPUs are not among them. Told that these
two are GPUs, it shards through gloo as it would through NCCL; everything behind that is the real
thing.
"""

import sys

from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from jacobi_forcing import cli
from jacobi_forcing.training import processes
from jacobi_forcing.training.trainer import JacobiTrainer

_join = PartialState.__init__
_check = processes.check_processes
_check_gradients = JacobiTrainer._check_gradients


def join_as_gpus(state, *args, **kwargs):
    _join(state, *args, **kwargs)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


def check_as_on_gpus(config, count, *, on_cpu):
    _check(config, count, on_cpu=False)


def check_shards(trainer, model, loss):
    assert all(isinstance(p, DTensor) for p in model.parameters() if p.requires_grad)
    _check_gradients(trainer, model, loss)


if __name__ == "__main__":
    PartialState.__init__ = join_as_gpus
    processes.check_processes = check_as_on_gpus
    JacobiTrainer._check_gradients = check_shards
    sys.exit(cli.main(sys.argv[1:]))
