"""The file that `jacobi tune` leaves: which decoder is fastest for a model on a machine.

Reading it changes how many forwards an answer takes, never the answer: a decoder's settings cannot.
So it may be taken up without asking, where it was made for what decodes now.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from jacobi_forcing.config import DecoderConfig, from_mapping
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.host import cpu_name, user_cache, versions
from jacobi_forcing.models.bundled import BUNDLED

if TYPE_CHECKING:
    from jacobi_forcing.models.causal_lm import CausalLM

logger = logging.getLogger(__name__)

TUNING = "tuning.json"  # beside a model's weights
_PACKAGES = ("jacobi-forcing", "torch", "transformers")  # that decide how fast a forward is


class Tuning(NamedTuple):
    """A tuning file."""

    path: Path
    machine: dict[str, Any]  # what it was made for: `machine_of`
    decoders: dict[int, dict[str, Any]]  # rows in flight -> settings of the fastest decoder

    def settings(self, num_rows: int = 1) -> dict[str, Any]:
        """Give the decoder for so many rows: that of the nearest number of rows measured."""
        nearest = min(self.decoders, key=lambda rows: (abs(rows - num_rows), rows))
        return self.decoders[nearest]

    def misfit(self, model: CausalLM) -> str:
        """Say what differs from the machine and model it was made for; nothing where it fits."""
        ours = machine_of(model)
        for name, value in ours.items():
            theirs = self.machine.get(name, False if name == "exact" else None)
            if theirs != value:
                return f"{name} was {theirs!r}, now it is {value!r}"
        return ""


def machine_of(model: CausalLM) -> dict[str, Any]:
    """Name all that a forward's seconds depend on, and the model that they are of."""
    is_cuda = model.device.type == "cuda"
    device = torch.cuda.get_device_name(model.device) if is_cuda else cpu_name()
    found = versions()
    return {
        "device": f"{model.device.type}, {device}",
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "compile": model.step is not None,
        "exact": model.exact is not None,
        **{package: found[package] for package in _PACKAGES},
        "weights": model.weights_fingerprint(),
    }


def default_place(name: str) -> Path:
    """Say where the tuning of a model lies: in its folder, or in the user's cache.

    The bundled models' folder belongs to the package, and what the hub gave is not to be written
    to: theirs is `~/.cache/jacobi-forcing/tuning/NAME.json` (or below `XDG_CACHE_HOME`).
    """
    if name not in BUNDLED and Path(name).is_dir():
        return Path(name) / TUNING
    return user_cache() / "tuning" / f"{name.replace('/', '--')}.json"


def read_tuning(path: Path) -> Tuning:
    """Read a tuning file.

    Raises:
        ConfigError: There is none, or it holds something else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        raise ConfigError(f"{path}: cannot read this tuning: {reason}.") from error
    found = record if isinstance(record, dict) else {}
    chosen, machine = found.get("chosen"), found.get("machine")
    if not isinstance(machine, dict) or not isinstance(chosen, dict) or not chosen:
        raise ConfigError(f"{path}: not what `jacobi tune` writes: it names no chosen decoders.")
    try:
        decoders = {int(rows): dict(one["decoder"]) for rows, one in chosen.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: its chosen decoders cannot be read: {error!r}.") from error
    for rows, settings in decoders.items():
        from_mapping(DecoderConfig, settings, f"{path}, {rows} rows")
    return Tuning(path, machine, decoders)


def find_tuning(model: CausalLM) -> Tuning | None:
    """Read the tuning that lies beside a model; one log line says so where it does not fit."""
    path = default_place(model.name)
    if not path.is_file():
        return None
    try:
        found = read_tuning(path)
        misfit = found.misfit(model)
    except ConfigError as error:
        found, misfit = None, str(error)
    if misfit:
        logger.info("%s is not used: %s; run `jacobi tune` again.", path, misfit)
        return None
    return found


def fill_in(given: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Add a tuned decoder's settings to those given, which go before it.

    Settings belong to their strategy: where another one is given, or where something is given about
    drafts and AR is what was found fastest, nothing of the tuned decoder is used.
    """
    strategy = tuned["strategy"]
    if given.get("strategy", strategy) != strategy:
        return dict(given)
    if strategy == "autoregressive" and set(given) - {"strategy"}:
        return dict(given)
    return {**tuned, **given}
