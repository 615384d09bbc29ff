"""Run by torchrun in two processes (see test_processes): one step of a sharded network."""

import copy
import json
import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from toys import tiny_network
from training import alone, collator, gradient, make_trainer, slow_loss, uneven_sequences

from jacobi_forcing.errors import DataError


def shard(network):
    """As accelerate 1.15 does: every layer, the embeddings, norm and head together, the rest."""
    for layer in network.model.layers:
        fully_shard(layer)
    fully_shard(network.model.embed_tokens)
    fully_shard([network.model.norm, network.lm_head], reshard_after_forward=False)
    fully_shard(network)


def full_gradient(network):
    parts = [p.grad.full_tensor().flatten() for p in network.parameters()]
    return torch.cat(parts)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    sequences = uneven_sequences()
    network = tiny_network()
    whole = copy.deepcopy(network)
    trainer = make_trainer(out, network, sequences, chunk_tokens=5)
    trainer.current_gradient_accumulation_steps = 1
    rank = trainer.args.process_index
    shard(network)
    trainer._whole = copy.deepcopy(whole) if rank == 0 else None  # as under accelerate's FSDP
    batch = collator()(sequences[2 * rank : 2 * rank + 2])
    counts = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    trainer.compute_loss(network, batch, num_items_in_batch=counts).backward()
    expected = gradient(slow_loss(whole, sequences, 2.0), whole)
    found = full_gradient(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    gathered = trainer.whole_network()
    if rank == 0:
        pairs = zip(gathered.parameters(), whole.parameters(), strict=True)
        is_whole = all(torch.equal(ours, before + 1) for ours, before in pairs)
    else:
        is_whole = None
    if rank == 1:  # of a shard, one process alone may see it
        next(p for p in network.parameters()).grad.to_local().fill_(float("nan"))
    trainer._prompts = alone(sequences)[rank]["prompt_index"].tolist()
    try:
        trainer._check_gradients(network, torch.zeros(()))
        stopped = ""
    except DataError as error:
        stopped = str(error)
    result = {
        "sharded": all(isinstance(p, DTensor) for p in network.parameters()),
        "gradient_error": float((found - expected).abs().max() / expected.abs().max()),
        "gathered": is_whole,
        "stopped": stopped,
    }
    (out / f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
