"""The server under load: what it costs over the engine, what it is worth over AR, what breaks it.

    python benchmarks/serve_load.py overhead           # streams, against the engine called directly
    python benchmarks/serve_load.py throughput         # requests per second, against our AR server
    python benchmarks/serve_load.py soak --minutes 10  # clients that leave, dawdle and send rubbish

Servers run in processes of their own, as `jacobi serve` starts them; clients share this one. The
last line printed is one JSON object; figures go to results/serve_PART.json.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import torch
from common import save
from multiblock import benchmark_prompts

from jacobi_forcing.config import ServeConfig
from jacobi_forcing.decoding import Finished, Forward, Request, Sampling
from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.serving.engine import Failed, Job
from jacobi_forcing.stages.serve import make_engine, make_service

MAX_TOKENS = 200


class Server(NamedTuple):
    """A server in a process of its own."""

    url: str
    pid: int

    @property
    def megabytes(self) -> float:
        """Memory that it holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def metric(self, name: str) -> float:
        """Read one number off /metrics."""
        text = httpx.get(f"{self.url}/metrics").text
        return float(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])


@contextlib.contextmanager
def served(model: str, threads: int, *flags: str) -> Iterator[Server]:
    """Start `jacobi serve`, and stop it."""
    command = [sys.executable, "-m", "jacobi_forcing", "serve", "--model", model, "--port", "0"]
    command += ["--threads", str(threads), "--tuning", "none", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = next((line for line in process.stderr if line.startswith("serving")), None)
    if line is None:
        sys.exit("the server did not start")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        yield Server(line.split(" at ")[1].split()[0], process.pid)
    finally:
        process.terminate()
        process.wait(30)


async def stream(
    client: httpx.AsyncClient, body: dict, on_chunk: Callable[[], Coroutine] | None = None
) -> tuple[str, int, float]:
    """Stream one answer; its text, tokens and seconds to the first of it."""
    text, tokens, start, first = "", 0, time.perf_counter(), 0.0
    body = body | {"stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("POST", "/v1/completions", json=body) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if not line or line == "data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            first = first or time.perf_counter() - start
            if chunk["choices"]:
                text += chunk["choices"][0]["text"]
            else:
                tokens = chunk["usage"]["completion_tokens"]
            if on_chunk is not None:
                await on_chunk()
    return text, tokens, first


class Wire:
    """A connection that asks and reads, and no more: what is timed is the server, not its client.

    Beside a model this small, what a client library takes would count as the server's.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    async def stream(self, body: dict) -> int:
        """Stream one answer; its tokens."""
        body = body | {"stream": True, "stream_options": {"include_usage": True}}
        content = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}"
        head += "\r\nContent-Type: application/json\r\n\r\n"
        self.writer.write(head.encode() + content)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        pieces = []
        while size := int(await self.reader.readline(), 16):
            pieces.append((await self.reader.readexactly(size + 2))[:-2])
        await self.reader.readline()
        *_, usage, done = (line[6:] for line in b"".join(pieces).splitlines() if line)
        assert done == b"[DONE]", done
        return json.loads(usage)["usage"]["completion_tokens"]


async def all_streams(url: str, bodies: list[dict], concurrency: int) -> tuple[int, float]:
    """Stream all answers, so many at a time; tokens and seconds."""
    waiting = iter(bodies)
    host, _, port = url.removeprefix("http://").rpartition(":")
    wires = [Wire(*await asyncio.open_connection(host, int(port))) for _ in range(concurrency)]

    async def work(wire: Wire) -> int:
        return sum([await wire.stream(body) for body in waiting])

    start = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(work, wires)))
    seconds = time.perf_counter() - start
    for wire in wires:
        wire.writer.close()
    return tokens, seconds


def directly(engine: Any, prompts: list[list[int]], concurrency: int) -> tuple[int, float]:
    """Hand the same prompts to an engine of this process; tokens and seconds."""
    free, tokens = threading.Semaphore(concurrency), []

    def deliver(event: Forward | Finished | Failed) -> None:
        if isinstance(event, Finished):
            tokens.append(len(event.answer_ids))
            free.release()

    start = time.perf_counter()
    for prompt in prompts:
        free.acquire()
        request = Request(-1, prompt, MAX_TOKENS)
        engine.submit([Job(request, engine.decoder, deliver, time.monotonic() + 600)])
    for _ in range(concurrency):
        free.acquire()
    return sum(tokens), time.perf_counter() - start


def bodies_of(model: CausalLM, prompts: list[list[int]]) -> list[dict]:
    """Make a body per prompt; ids, so that nothing is tokenised twice."""
    return [{"model": model.name, "prompt": p, "max_tokens": MAX_TOKENS} for p in prompts]


def spread(values: list[float]) -> dict[str, float]:
    """Give median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def overhead(args: argparse.Namespace, model: CausalLM) -> list[dict]:
    """Compare streams over HTTP with the engine called directly, taking turns."""
    rows = []
    # Both at a fixed width: what an automatic one finds differs from run to run.
    config = ServeConfig(model=args.model, width="full", tuning="none", prefix_tokens=0)
    service = make_service(config, make_engine(config, model))
    service.engine.start()
    with served(args.model, args.threads, "--width", "full", "--prefix-tokens", "0") as server:
        for concurrency in (1, 16):
            prompts = benchmark_prompts(model, args.prompts if concurrency > 1 else 12)
            ratios = []
            for repeat in range(args.repeats + 1):
                num, alone = directly(service.engine, prompts, concurrency)
                again, streamed = asyncio.run(
                    all_streams(server.url, bodies_of(model, prompts), concurrency)
                )
                assert num == again, "the server's answers are not the engine's"
                if repeat:  # the first is the warm-up
                    ratios.append(streamed / alone - 1)
            rows.append({"streams": concurrency, "overhead": spread(ratios)})
            print(f"{concurrency:3} streams: {rows[-1]['overhead']['median']:+.1%} seconds")
    service.engine.close()
    return rows


def throughput(args: argparse.Namespace, model: CausalLM) -> list[dict]:
    """Compare requests per second with our AR server's, taking turns.

    The AR server is timed twice in a turn: its ratio to itself is what differs by chance.
    """
    rows = []
    with (
        served(args.model, args.threads, "--batch-size", "64") as ours,
        served(
            args.model, args.threads, "--batch-size", "64", "--strategy", "autoregressive"
        ) as plain,
    ):
        for concurrency in args.concurrency:
            prompts = benchmark_prompts(model, max(12, min(4 * concurrency, args.prompts)))
            bodies = bodies_of(model, prompts)
            ratios, by_chance = [], []
            for repeat in range(args.repeats + 1):
                turn = [("ours", ours), ("plain", plain), ("again", plain)]
                found = {}
                for name, server in turn[repeat % 3 :] + turn[: repeat % 3]:
                    found[name] = asyncio.run(all_streams(server.url, bodies, concurrency))
                assert len({tokens for tokens, _ in found.values()}) == 1, (
                    "answers differ from AR's"
                )
                seconds = {name: one for name, (_, one) in found.items()}
                if repeat:
                    ratios.append(statistics.mean((seconds["plain"], seconds["again"])))
                    ratios[-1] /= seconds["ours"]
                    by_chance.append(seconds["plain"] / seconds["again"])
            rows.append(
                {"clients": concurrency, "times_ar": spread(ratios), "by_chance": spread(by_chance)}
            )
            print(f"{concurrency:3} clients: {rows[-1]['times_ar']['median']:.2f}x the AR server")
    return rows


class Soak:
    """Clients of all kinds, and what is wrong with what they get."""

    def __init__(self, model: CausalLM, expected: dict[tuple, str], seconds: float):
        self.model = model
        self.expected = expected  # (prompt, seed) -> text
        self.end = time.perf_counter() + seconds
        self.counts: Counter[str] = Counter()
        self.firsts: list[float] = []

    async def run(self, server: Server, num_clients: int) -> None:
        """Run all clients until the time is over."""
        limits = httpx.Limits(max_connections=2 * num_clients)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
            await asyncio.gather(*(self.client(client, number) for number in range(num_clients)))

    async def client(self, client: httpx.AsyncClient, number: int) -> None:
        """Send one request after the other."""
        rng = random.Random(number)
        kinds = [self.completes, self.leaves, self.dawdles, self.babbles, self.overflows]
        while time.perf_counter() < self.end:
            (kind,) = rng.choices(kinds, weights=[70, 12, 8, 5, 5])
            await kind(client, rng)

    def pick(self, rng: random.Random) -> tuple[tuple, dict]:
        """Choose a prompt and how its tokens are chosen."""
        prompt, seed = rng.choice(list(self.expected))
        (body,) = bodies_of(self.model, [list(prompt)])
        return (prompt, seed), body | {"seed": seed, "temperature": 0.8 if seed else 0.0}

    async def completes(self, client: httpx.AsyncClient, rng: random.Random, pause=None) -> None:
        """Read an answer to its end, and compare it."""
        key, body = self.pick(rng)
        try:
            text, _, first = await stream(client, body, pause)
        except httpx.HTTPStatusError as error:
            self.counts[f"status {error.response.status_code}"] += 1
            await asyncio.sleep(float(error.response.headers.get("retry-after", 1)))
            return
        self.firsts.append(first)
        self.counts["right" if text == self.expected[key] else "WRONG"] += 1

    async def dawdles(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        """Read an answer slowly."""

        async def pause() -> None:
            await asyncio.sleep(rng.random() / 4)

        await self.completes(client, rng, pause)

    async def leaves(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        """Go away in the middle of an answer, or before it."""
        _, body = self.pick(rng)
        with contextlib.suppress(TimeoutError, httpx.HTTPStatusError):
            await asyncio.wait_for(stream(client, body), rng.random())
        self.counts["left"] += 1

    async def babbles(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        """Send what is no request."""
        rubbish = [b"{", b"\xff" * 50, b"[]", b'{"model": 1}', rng.randbytes(200)]
        headers = {"content-type": "application/json"}
        reply = await client.post("/v1/completions", content=rng.choice(rubbish), headers=headers)
        self.counts["refused" if reply.status_code == 400 else "NOT REFUSED"] += 1

    async def overflows(self, client: httpx.AsyncClient, _: random.Random) -> None:
        """Send a prompt that the context does not hold."""
        body = {"model": self.model.name, "prompt": [5] * 5000}
        reply = await client.post("/v1/completions", json=body)
        self.counts["refused" if reply.status_code == 400 else "NOT REFUSED"] += 1


def soak(args: argparse.Namespace, model: CausalLM) -> list[dict]:
    """Let 64 clients loose on our server, and then on an AR one."""
    expected = {}
    for number, prompt in enumerate(benchmark_prompts(model, 60)):
        seed = number % 3  # 0 is greedy
        sampling = Sampling(temperature=0.8, seed=seed) if seed else Sampling()
        found = answer(model, prompt, max_new_tokens=MAX_TOKENS, sampling=sampling, tuned=False)
        expected[tuple(prompt), seed] = found.text
    rows = []
    for strategy in ("window", "autoregressive"):
        with served(args.model, args.threads, "--strategy", strategy) as server:
            run = Soak(model, expected, 60 * args.minutes)
            memory: list[float] = []
            watcher = threading.Thread(target=_watch, args=(server, run, memory), daemon=True)
            watcher.start()
            asyncio.run(run.run(server, args.clients))
            watcher.join()
            time.sleep(2)
            left = server.metric("jacobi_requests_running") + server.metric(
                "jacobi_requests_waiting"
            )
            cuts = statistics.quantiles(run.firsts, n=100)
            rows.append(
                {
                    "strategy": strategy,
                    "minutes": args.minutes,
                    "clients": args.clients,
                    "counts": dict(run.counts),
                    "first_token_p50": cuts[49],
                    "first_token_p99": cuts[98],
                    "rows_left": left,
                    "megabytes_early": statistics.mean(memory[len(memory) // 10 :][:5]),
                    "megabytes_late": statistics.mean(memory[-5:]),
                }
            )
            print(json.dumps(rows[-1]))
    return rows


def _watch(server: Server, run: Soak, memory: list[float]) -> None:
    """Read the server's memory every second."""
    while time.perf_counter() < run.end:
        memory.append(server.megabytes)
        time.sleep(1)


def main() -> None:
    """Run one part, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["overhead", "throughput", "soak"])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1, help="of a server")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    model = load_model(args.model)
    rows = {"overhead": overhead, "throughput": throughput, "soak": soak}[args.part](args, model)
    save(f"serve_{args.part}", rows, model=args.model)
    print(json.dumps({args.part: rows}))


if __name__ == "__main__":
    main()
