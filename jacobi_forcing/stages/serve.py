"""serve: answer OpenAI-style requests over HTTP until it is stopped."""

import logging
import os
import socket
from pathlib import Path

from jacobi_forcing import problems
from jacobi_forcing.config import ServeConfig
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.stages.machine import check_block_size, open_model, tuned

logger = logging.getLogger(__name__)

_MOST_TOKENS = 8192  # of prompt and answer, where a model's context is larger and none is said


def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        JacobiForcingError: A package is missing, the port is taken, or the model cannot be used.
    """
    try:
        import uvicorn

        from jacobi_forcing.serving.app import make_app
    except ImportError as error:
        raise ConfigError(
            f"serving needs {error.name}: pip install 'jacobi-forcing[serve]'."
        ) from error
    listening = _listen(config.host, config.port)
    model = open_model(config)
    config = tuned(config, model)
    check_block_size(config, model)
    app = make_app(
        make_service(config, model),
        api_key=config.api_key or os.environ.get("JACOBI_API_KEY", ""),
        max_body_bytes=1024 * config.max_body_kilobytes,
        allow_origin=config.allow_origin,
    )
    settings = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(config.drain_seconds)),
        h11_max_incomplete_event_size=1 << 16,
    )
    port = listening.getsockname()[1]
    host = f"[{config.host}]" if ":" in config.host else config.host
    logger.info("serving %s at http://%s:%d (API: /docs)", model_name(config), host, port)
    uvicorn.Server(settings).run(sockets=[listening])


def make_service(config: ServeConfig, model: CausalLM):
    """Make what answers: an engine, not yet started, and what reads requests for it."""
    from jacobi_forcing.serving.app import Service
    from jacobi_forcing.serving.asked import Limits, Reader
    from jacobi_forcing.serving.engine import Engine

    max_tokens = min(config.max_tokens or _MOST_TOKENS, model.context_tokens)
    engine = Engine(
        model,
        config.decoder,
        batch_size=config.batch_size,
        max_waiting=config.max_waiting,
        max_tokens=max_tokens,
        prefill_tokens=config.prefill_tokens,
        prefix_tokens=config.prefix_tokens,
        adapts_width=config.width == "auto",
    )
    limits = Limits(max_tokens, config.max_new_tokens, config.max_choices)
    return Service(
        model_name(config),
        engine,
        Reader(model, config.decoder, limits),
        time_limit=config.time_limit,
        log_prompts=config.log_prompts,
        examples=_examples(config.model),
    )


def _examples(model: str) -> list[str]:
    """Give prompts of the kind that the bundled models have learned; none for others."""
    if model not in BUNDLED:
        return []
    return [p.prompt for kind in ("math", "code") for p in problems.held_out(kind, 3, 0)]


def model_name(config: ServeConfig) -> str:
    """Give what clients call the model."""
    return config.name or Path(config.model).name or config.model


def _listen(host: str, port: int) -> socket.socket:
    """Open the port before the model is loaded: that it is taken should not cost minutes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen at {host}:{port}: {error.strerror or error}. Choose another --host or "
            "--port; --port 0 takes a free one."
        ) from error
    return listening
