"""Settings that depend on a model's size, where nobody has chosen them."""

from jacobi_forcing.config import CollectConfig, TrainConfig

_LARGE = 5_000_000_000  # parameters from which on the defaults are those of the paper's models


def untuned(
    config: TrainConfig, *, num_parameters: int, num_steps: int, block_size: int
) -> str | None:
    """Name what is left at a default that is known for models of another size only.

    The learning rates are those of docs/experiments.md, of a third party's Qwen3-1.7B, and of
    arXiv:2512.14681; for adapters 1e-4 is usual, and not tuned.

    Args:
        config: Of the training.
        num_parameters: Of the model, adapters left out.
        num_steps: That the training will make.
        block_size: Of the packed data, in tokens.

    Returns:
        One line; None for a large model, or where all was chosen.
    """
    if num_parameters >= _LARGE and not config.lora_rank:
        return None
    known = "1e-3 for 0.3 to 3 million, 5e-6 for 1.7 billion, 1e-6 for 7 billion"
    if config.lora_rank:
        known += "; adapters usually take 1e-4"
    notes = {
        "learning_rate": f"learning rate {config.learning_rate:g} (known to work: {known})",
        "ar_weight": f"AR weight {config.ar_weight:g} (6 to 30 have been tried)",
        "epochs": f"{config.epochs:g} epoch, here {num_steps} steps (the paper makes 10,000; the "
        "smallest models here gained within 150)",
    }
    is_chosen = {name: name in config.given for name in notes}
    is_chosen["epochs"] |= bool(config.max_steps)
    found = [note for name, note in notes.items() if not is_chosen[name]]
    if found and block_size == CollectConfig.block_size:
        found.append(f"block size {block_size} (the paper goes on to 32 in its second round)")
    if not found:
        return None
    size = f"{num_parameters / 1e6:.3g} million"
    return f"Left at defaults, untuned for a model of {size} parameters: {', '.join(found)}."
