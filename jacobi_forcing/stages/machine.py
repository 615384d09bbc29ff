"""Open a stage's model on the machine its settings name, and save what a stage made of it."""

import logging
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jacobi_forcing.config import DecoderConfig, DecodingMachine, SamplingConfig, TunedConfig
from jacobi_forcing.data.files import read_json, write_json
from jacobi_forcing.decoding.generation import changing_settings, sampling_defaults
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.integrations import write_custom_generate
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.models.adapters import BASE, CONFIG, Base
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.models.saving import finish, save_tokenizer
from jacobi_forcing.models.tuning import fill_in, read_tuning
from jacobi_forcing.training.adapters import bare

logger = logging.getLogger(__name__)


def set_threads(threads: int) -> None:
    """Use that many CPU threads; 0 leaves PyTorch's default."""
    if threads:
        torch.set_num_threads(threads)


def open_model(config) -> CausalLM:
    """Load `config.model` as its machine settings say."""
    set_threads(config.threads)
    logger.info("loading %s", config.model)
    return load_model(
        config.model,
        device=config.device,
        dtype=config.dtype,
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
        probed=config.probe,
        compile=isinstance(config, DecodingMachine) and config.compile,
        exact=isinstance(config, DecodingMachine) and config.exact,
    )


def tuned(config: TunedConfig, model: CausalLM) -> TunedConfig:
    """Fill in what `jacobi tune` found for one row; settings that were given stay.

    Raises:
        ConfigError: `--tuning` names a file that cannot be read, or was made for something else.
    """
    if config.tuning == "none":
        return config
    found = read_tuning(Path(config.tuning)) if config.tuning else model.tuning
    if found is None:
        return config
    misfit = found.misfit(model) if config.tuning else ""
    if misfit:
        raise ConfigError(
            f"--tuning {config.tuning} was made for something else: {misfit}. Run `jacobi tune` "
            "here, or pass --tuning none."
        )
    names = {f.name for f in fields(DecoderConfig)}.intersection(config.given)
    settings = fill_in({name: getattr(config, name) for name in names}, found.settings())
    return config.changed(**settings)


def sampling_settings(config: SamplingConfig, model: CausalLM) -> dict[str, Any]:
    """Give the fields of Sampling: what was asked for, else what generation_config.json says.

    Tokens are drawn only where that is asked for; a log line says so where `model.generate` would
    draw.
    """
    found = model.generation_config
    asked = {name: value for name, value in config.sampling.items() if name in config.given}
    if found.do_sample and "temperature" not in asked:
        logger.info(
            "generation_config.json of %s draws tokens (do_sample); here the likeliest is taken. "
            "--temperature draws.",
            config.model,
        )
    return config.sampling | sampling_defaults(found, draws=False) | asked


def report_set_aside(config, model: CausalLM, verb: str) -> None:
    """Log what generation_config.json asks for and a stage leaves out, unless it was asked for."""
    names = changing_settings(model.generation_config)
    asked = {"do_sample" if name == "temperature" else name for name in config.given}
    left = [name for name in names if name not in asked]
    if left:
        logger.warning(
            "generation_config.json of %s sets %s, which changes what model.generate gives; %s "
            "takes the model's own likeliest tokens unless a flag says otherwise, and leaves that "
            "out.",
            config.model,
            ", ".join(left),
            verb,
        )


def lasting_name(model: str) -> str:
    """Give a model's name as it holds from any folder of this machine."""
    is_folder = model not in BUNDLED and Path(model).is_dir()
    return str(Path(model).resolve()) if is_folder else model


def check_block_size(config, model: CausalLM) -> None:
    """Raise ConfigError where a block does not fit into the model's context."""
    if config.block_size > model.context_tokens:
        raise ConfigError(
            f"--block-size is {config.block_size}, but {config.model} has a context of only "
            f"{model.context_tokens} tokens. Take smaller blocks."
        )


def save_model(out: Path, model: CausalLM, network: nn.Module, base: Base | None = None) -> None:
    """Save as a plain Hugging Face directory; what is in `out` is replaced file by file.

    Args:
        out: The directory.
        model: Whose tokenizer goes with it.
        network: A network, or PEFT's model around one: then only its adapters are saved.
        base: What those belong to.
    """
    staging = out / ".saving"
    shutil.rmtree(staging, ignore_errors=True)
    network.save_pretrained(staging)
    finish(bare(network), staging)
    if base is not None:
        write_json(staging / BASE, base._asdict())
        # Other tools load the base from here: PEFT's own entry may hold for one working folder.
        place = {"base_model_name_or_path": str(BUNDLED.get(base.model, base.model))}
        write_json(staging / CONFIG, read_json(staging / CONFIG) | place)
        (staging / "README.md").unlink(missing_ok=True)  # PEFT's empty form
    save_tokenizer(model.tokenizer, staging)
    for file in staging.iterdir():
        file.replace(out / file.name)
    staging.rmdir()
    write_custom_generate(out)
