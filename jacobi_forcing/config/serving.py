"""Settings of serving: who may ask, how much, and how long they may take."""

from dataclasses import dataclass

from jacobi_forcing.config.base import check, listing, option
from jacobi_forcing.config.decoding import TunedConfig


@dataclass(frozen=True, kw_only=True)
class ServeConfig(TunedConfig):
    """Answer OpenAI-style requests over HTTP, many at a time, with a page to try it."""

    model: str = option("tiny-forced", "directory, hub id, tiny-base or tiny-forced")
    name: str = option("", "what clients call the model; by default the last part of --model")
    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0 is reachable from elsewhere")
    port: int = option(8000, "port to listen at; 0 takes a free one")
    batch_size: int = option(16, "most answers in flight; others wait their turn")
    max_tokens: int = option(
        0,
        "longest prompt plus answer, which sizes the cache; 0 takes the model's context, at "
        "most 8192",
    )
    max_new_tokens: int = option(256, "longest answer where a request names no max_tokens")
    max_waiting: int = option(256, "requests that may wait; more are turned away with status 429")
    max_body_kilobytes: int = option(1024, "largest request body")
    max_choices: int = option(8, "most answers to one request (n)")
    time_limit: float = option(300.0, "seconds that a request may take, its waiting included")
    drain_seconds: float = option(30.0, "time to finish running answers after SIGTERM")
    width: str = option(
        "auto",
        "guesses per forward: auto follows the load, full takes what the decoder proposes",
        ("auto", "full"),
    )
    prefill_tokens: int = option(
        512, "longest piece of a prompt that is read between two steps of running answers"
    )
    prefix_tokens: int = option(
        8192, "tokens of finished texts that are kept for prompts that begin alike; 0 for none"
    )
    api_key: str = option(
        "", "key that clients must send; better set JACOBI_API_KEY, which no process list shows"
    )
    allow_origin: str = listing(
        "", "web origins whose pages may ask, separated by commas; by default none but our own page"
    )
    engine: str = option(
        "local",
        "local answers on this machine; ray runs --replicas copies behind one address",
        ("local", "ray"),
    )
    replicas: int = option(1, "ray: copies of the server, each with the model")
    max_replicas: int = option(0, "ray: most copies, as the load grows; 0 keeps their number")
    log_prompts: bool = option(False, "write prompts and answers to the log")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.port < 1 << 16, f"--port is {self.port}, must be from 0 to 65535.")
        check(self.time_limit > 0, f"--time-limit is {self.time_limit}, must be above 0.")
        check(
            self.engine == "ray" or self.replicas == 1,
            f"--replicas is {self.replicas}, which needs --engine ray.",
        )
        check(
            self.engine == "ray" or self.max_replicas == 0,
            f"--max-replicas is {self.max_replicas}, which needs --engine ray.",
        )
        check(
            self.engine == "local" or self.port > 0,
            "--port is 0, but --engine ray needs to be told its port.",
        )
        check(
            self.max_replicas == 0 or self.max_replicas >= self.replicas,
            f"--max-replicas is {self.max_replicas}, below --replicas {self.replicas}.",
        )
        check(
            self.engine == "local" or ":" not in self.device,
            f"--device is {self.device!r}, but with --engine ray every replica gets a GPU of its "
            "own: take cuda.",
        )
        check(
            self.api_key.isascii() and len(self.api_key.split()) < 2,
            "--api-key holds spaces, or characters that no HTTP header takes.",
        )
