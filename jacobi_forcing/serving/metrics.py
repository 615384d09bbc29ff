"""What a Prometheus server reads: the engine's load, and how long clients waited."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from jacobi_forcing.serving.engine import Engine
from jacobi_forcing.serving.engine_process import EngineProcess

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class _EngineLoad:
    """Reads the engine's counts when it is asked; Prometheus calls `collect`."""

    def __init__(self, engine: Engine | EngineProcess):
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yield gauges and counters."""
        load = self.engine.load
        for name, text, value in (
            ("running", "answers in flight", load.running),
            ("waiting", "requests that have not begun", load.waiting),
        ):
            yield GaugeMetricFamily(f"jacobi_requests_{name}", text, value=value)
        for name, text, value in (
            ("answer_tokens", "tokens of answers", load.tokens),
            ("forwards", "forwards, counted per answer", load.forwards),
            ("steps", "forwards, all answers together", load.steps),
            ("prompt_tokens", "tokens of prompts", load.prompt_tokens),
            ("reused_prompt_tokens", "of those, copied from earlier texts", load.reused_tokens),
            ("step_failures", "steps that the model broke off", load.failures),
        ):
            yield CounterMetricFamily(f"jacobi_{name}", text, value=value)


class Metrics:
    """The server's metrics, in a registry of their own."""

    def __init__(self, engine: Engine | EngineProcess):
        self.registry = CollectorRegistry()
        self.registry.register(_EngineLoad(engine))
        self.requests = Counter(
            "jacobi_http_requests", "requests by status", ["status"], registry=self.registry
        )
        self.first_token = Histogram(
            "jacobi_time_to_first_token_seconds",
            "from a request's arrival to its first text",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "jacobi_request_seconds",
            "from a request's arrival to its end",
            buckets=_SECONDS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Write them in Prometheus' format."""
        return generate_latest(self.registry)
