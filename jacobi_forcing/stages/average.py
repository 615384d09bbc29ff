"""average: a model between models, by the weighted mean of their weights."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from jacobi_forcing.config import AverageConfig
from jacobi_forcing.data.files import locked, write_json
from jacobi_forcing.data.record import RECORD, claim, refuse_model, run_record
from jacobi_forcing.data.trajectories import tokenizer_fingerprint
from jacobi_forcing.errors import DataError
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.stages.machine import save_model

logger = logging.getLogger(__name__)


def run(config: AverageConfig) -> Path:
    """Average `config.models` into `config.out`; return that folder.

    Training for speed moves a model a little away from what it could do, round by round. The mean
    of the start and the rounds keeps most of the speed and gets most of the accuracy back, without
    a step of training and at no cost in decoding (weight averaging: Wortsman et al. 2021, 2022).
    Neither the paper nor the reference does this.

    Raises:
        JacobiForcingError: Bad weights, models that are not of one kind, or a folder that holds
            another model or that another process is at work in.
    """
    out = Path(config.out)
    refuse_model(out)  # before models are loaded, not after
    models = []
    for name in config.names:
        logger.info("loading %s", name)
        models.append(load_model(name, device="cpu", dtype="float32"))
    first = models[0]
    inputs = {model.name: model.weights_fingerprint() for model in models}
    mean = mean_weights(models, config.numbers)
    record = run_record(config, inputs=inputs)
    claim(out, record["settings"] | {"inputs": inputs}, free=("out",))
    with locked(out / "settings.json"):
        first.network.load_state_dict(mean)
        save_model(out, first, first.network.to(getattr(torch, config.dtype)))
        write_json(out / RECORD, record)
    parts = zip(config.numbers, config.names, strict=True)
    logger.info("wrote %s: %s", out, " + ".join(f"{w:g} x {name}" for w, name in parts))
    return out


def mean_weights(models: Sequence[CausalLM], numbers: Sequence[float]) -> dict[str, Tensor]:
    """Give the weights by name, each the sum of the models' own times their numbers.

    Raises:
        DataError: The models are not of one kind.
    """
    mean: dict[str, Tensor] = {}
    for model, number in zip(models, numbers, strict=True):
        _check_kind(models[0], model)
        for name, tensor in model.network.state_dict().items():
            mean[name] = mean.get(name, 0) + number * tensor
    return mean


def _check_kind(first: CausalLM, model: CausalLM) -> None:
    if tokenizer_fingerprint(first.tokenizer) != tokenizer_fingerprint(model.tokenizer):
        raise DataError(
            f"{model.name}: has another tokenizer than {first.name}, so its weights mean other "
            "tokens. Average a model only with what it was trained to."
        )
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in m.network.state_dict().items()}
        for m in (first, model)
    ]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{model.name}: has weights of other names or shapes than {first.name}. Average a "
            "model only with what it was trained to."
        )
