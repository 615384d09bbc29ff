"""The server gives what the decoder gives, to every client, whatever the others do."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from pathlib import Path

import pytest
import torch
import transformers
from servers import PROBLEM, ask, command, offline, serving, until_idle
from toys import toy_model

openai = pytest.importorskip("openai", reason="needs the serve extra and openai")
httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")

from fastapi.testclient import TestClient  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from jacobi_forcing import cli  # noqa: E402
from jacobi_forcing.config import DecoderConfig, ServeConfig  # noqa: E402
from jacobi_forcing.decoding import Forward, Request, Sampling  # noqa: E402
from jacobi_forcing.decoding.draft import chain  # noqa: E402
from jacobi_forcing.errors import ConfigError  # noqa: E402
from jacobi_forcing.models import RaggedForward, load_model  # noqa: E402
from jacobi_forcing.serving.app import make_app  # noqa: E402
from jacobi_forcing.serving.asked import Limits, Reader  # noqa: E402
from jacobi_forcing.serving.choice import StopText  # noqa: E402
from jacobi_forcing.serving.engine import Engine, Failed, Job  # noqa: E402
from jacobi_forcing.serving.facts import facts_of  # noqa: E402
from jacobi_forcing.serving.service import Mailbox  # noqa: E402
from jacobi_forcing.stages import serve  # noqa: E402

TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def model():
    model = load_model("tiny-forced")
    model.tokenizer.chat_template = TEMPLATE
    return model


@pytest.fixture(scope="module")
def server(model):
    with serving(model) as (service, url):
        yield service, url


@pytest.fixture(scope="module")
def url(server):
    return server[1]


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


def test_openais_client_reads_what_the_decoder_says(model, client):
    expected = offline(model, PROBLEM)
    asked = {"model": "tiny-forced", "max_tokens": 60}
    whole = client.completions.create(prompt=PROBLEM, **asked)
    assert whole.choices[0].text == expected.text
    assert whole.choices[0].finish_reason == {"eos": "stop"}.get(
        expected.finished.reason, expected.finished.reason
    )
    assert whole.usage.completion_tokens == len(expected.ids)
    assert whole.usage.prompt_tokens == len(model.tokenizer.encode(PROBLEM))
    assert whole.usage.tokens_per_forward > 1.5
    stream = client.completions.create(
        prompt=PROBLEM, stream=True, stream_options={"include_usage": True}, **asked
    )
    *chunks, last = stream
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected.text
    assert len(chunks) > 3
    assert last.usage.completion_tokens == len(expected.ids)
    said = [{"role": "user", "content": PROBLEM.strip()}]
    chat = client.chat.completions.create(messages=said, **asked)
    assert chat.choices[0].message.content == expected.text
    assert chat.choices[0].message.role == "assistant"
    parts = [{"role": "user", "content": [{"type": "text", "text": PROBLEM.strip()}]}]
    chunks = list(client.chat.completions.create(messages=parts, stream=True, **asked))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected.text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert client.models.list().data[0].id == "tiny-forced"


def test_a_seed_gives_the_same_text_whatever_the_load(model, url):
    asked = {"temperature": 2.0, "top_k": 50, "seed": 7, "max_tokens": 50}
    alone = ask(url, **asked).json()["choices"][0]["text"]
    sampling = Sampling(temperature=2.0, top_k=50, seed=7)
    assert alone == offline(model, PROBLEM, 50, sampling=sampling).text
    found, threads = [], []
    for number in range(10):
        body = asked | {"seed": 7 if number % 2 else number + 100}
        threads.append(
            threading.Thread(
                target=lambda body=body: found.append((body["seed"], ask(url, **body)))
            )
        )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [reply.json()["choices"][0]["text"] for seed, reply in found if seed == 7]
    assert texts == [alone] * 5
    others = {reply.json()["choices"][0]["text"] for seed, reply in found if seed != 7}
    assert len(others) > 2


def test_several_choices_and_prompts_come_in_order(model, url):
    prompts = [PROBLEM, "def add(a, b):\n"]
    asked = {"prompt": prompts, "n": 2, "temperature": 1.8, "seed": 3, "max_tokens": 20}
    choices = ask(url, **asked).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert choices[0]["text"] != choices[1]["text"]  # answers to one prompt differ in their seed
    for place, prompt in ((0, 0), (2, 1)):
        sampling = Sampling(temperature=1.8, seed=3)
        assert choices[place]["text"] == offline(model, prompts[prompt], 20, sampling=sampling).text
    with httpx.stream(
        "POST", f"{url}/v1/completions", json={"model": "tiny-forced", **asked, "stream": True}
    ) as reply:
        texts = ["", "", "", ""]
        for chunk in events(reply):
            texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == [choice["text"] for choice in choices]
    ids = [model.tokenizer.encode(prompt) for prompt in prompts]
    assert ask(url, **asked | {"prompt": ids}).json()["choices"] == choices


def events(reply):
    """The objects of a stream; checks that it ends as it should."""
    lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_stop_string_is_no_part_of_the_text(model, url):
    text = offline(model, PROBLEM).text
    for stop in (text[5:8], [text[10:25], "never"], text[7]):
        some = [stop] if isinstance(stop, str) else stop
        first = min(text.index(one) for one in some if one in text)
        whole = ask(url, stop=stop, max_tokens=60).json()
        assert whole["choices"][0]["text"] == text[:first]
        assert whole["choices"][0]["finish_reason"] == "stop"
        with httpx.stream(
            "POST",
            f"{url}/v1/completions",
            json={
                "model": "tiny-forced",
                "prompt": PROBLEM,
                "stop": stop,
                "max_tokens": 60,
                "stream": True,
            },
        ) as reply:
            chunks = events(reply)
        assert "".join(c["choices"][0]["text"] for c in chunks) == text[:first]
        assert whole["usage"]["completion_tokens"] < 60


@settings(deadline=None)
@given(
    st.lists(st.text("ab", max_size=4), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_text_is_cut_at_the_first_stop_however_it_comes(pieces, stops):
    stop, out = StopText(stops), []
    for piece in pieces:
        out.append(stop.push(piece))
        if stop.is_over:
            break
    out.append(stop.finish())
    text = "".join(pieces)
    # The slow way: letter by letter, as soon as one is complete.
    ends = [
        (end, max(len(s) for s in stops if text[:end].endswith(s)))
        for end in range(len(text) + 1)
        if any(text[:end].endswith(s) for s in stops)
    ]
    found = "".join(out)
    if not ends:
        assert found == text
        assert not stop.is_over
    else:
        assert stop.is_over
        assert not any(s in found for s in stops)
        assert text.startswith(found)
        assert any(text[len(found) :].startswith(s) for s in stops)


def test_logprobs_bias_and_echo(model, url):
    expected = offline(model, PROBLEM, 12)
    echoed = ask(url, max_tokens=12, echo=True).json()["choices"][0]
    assert echoed["text"] == PROBLEM + expected.text
    refused = ask(url, max_tokens=12, logprobs=2, echo=True)
    assert refused.status_code == 400, "a prompt without logprobs would be taken for a likely one"
    reply = ask(url, max_tokens=12, logprobs=2).json()["choices"][0]
    assert reply["text"] == expected.text
    logits = model.network(torch.tensor([model.tokenizer.encode(PROBLEM) + expected.ids])).logits
    start = len(model.tokenizer.encode(PROBLEM)) - 1
    right = logits[0, start:-1].log_softmax(-1)[range(len(expected.ids)), expected.ids]
    torch.testing.assert_close(
        torch.tensor(reply["logprobs"]["token_logprobs"]), right, atol=1e-3, rtol=1e-3
    )
    assert "".join(reply["logprobs"]["tokens"]).strip() == expected.text.strip()
    assert all(len(others) == 2 for others in reply["logprobs"]["top_logprobs"])
    first = expected.ids[0]
    banned = ask(url, max_tokens=12, logit_bias={str(first): -100}).json()["choices"][0]["text"]
    assert banned == offline(model, PROBLEM, 12, sampling=Sampling(logit_bias={first: -100.0})).text
    assert banned != expected.text


def test_a_part_of_a_character_has_no_bytes_of_a_whole_one(client, model):
    part = next(i for i in range(model.vocab_tokens) if "\ufffd" in model.tokenizer.decode([i]))
    whole = model.tokenizer.encode("é 7")[-1]
    for token, found in ((part, None), (whole, list(model.tokenizer.decode([whole]).encode()))):
        reply = client.chat.completions.create(
            model="tiny-forced",
            messages=[{"role": "user", "content": "2 + 3"}],
            max_tokens=1,
            logprobs=True,
            logit_bias={str(token): 100},
        )
        assert [one.bytes for one in reply.choices[0].logprobs.content] == [found]


def test_what_a_reply_says_can_be_sent_back(client, url):
    """Also its nulls, as `messages.append(reply.choices[0].message)` does."""
    messages = [{"role": "user", "content": "What is 2 + 3?"}]
    reply = client.chat.completions.create(model="tiny-forced", messages=messages, max_tokens=5)
    messages += [reply.choices[0].message.model_dump(), {"role": "user", "content": "And 4?"}]
    assert messages[1]["refusal"] is None
    client.chat.completions.create(model="tiny-forced", messages=messages, max_tokens=5)
    assert ask(url, max_tokens=3, tools=None, suffix=None, top_k=-1).status_code == 200
    assert ask(url, max_tokens=3, tools=[]).status_code == 400


def test_the_model_can_be_asked_for_by_name(client):
    assert client.models.retrieve("tiny-forced").id == "tiny-forced"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_offsets_in_a_stream_go_on_from_chunk_to_chunk(client):
    how = {"model": "tiny-forced", "prompt": PROBLEM, "max_tokens": 12, "logprobs": 1}
    whole = client.completions.create(**how).choices[0].logprobs.text_offset
    chunks = [chunk.choices[0] for chunk in client.completions.create(**how, stream=True)]
    told = [offset for one in chunks if one.logprobs for offset in one.logprobs.text_offset]
    assert told == whole
    assert sorted(set(told)) == told


def test_more_answers_than_can_ever_wait_are_refused_and_not_put_off(model):
    with serving(model, batch_size=1, max_waiting=2) as (_, url):
        assert ask(url, n=4, max_tokens=2, temperature=1.0).status_code == 400
        assert ask(url, n=3, max_tokens=2, temperature=1.0).status_code == 200


def test_streams_whose_clients_leave_before_the_first_token_are_let_go(model):
    endless = {str(token): -100 for token in model.eos_ids}
    slow = {"max_tokens": 300, "logit_bias": endless, "jacobi": {"strategy": "autoregressive"}}
    with serving(model, batch_size=1, max_waiting=5) as (service, url):
        first = threading.Thread(target=lambda: ask(url, **slow))
        first.start()
        while not service.engine.load.running:
            time.sleep(0.01)

        def leaves():
            body = {"model": "tiny-forced", "prompt": PROBLEM, "stream": True} | slow
            with contextlib.suppress(httpx.ReadTimeout):
                httpx.post(f"{url}/v1/completions", json=body, timeout=0.2)

        threads = [threading.Thread(target=leaves) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while service.engine.load.waiting:
            assert service.engine.load.steps < 250, "they waited for their turn"
            time.sleep(0.01)
        first.join()


def test_an_engine_that_cannot_go_on_says_so_to_everybody(model, monkeypatch):
    with serving(model) as (service, url):
        assert ask(url, max_tokens=3).status_code == 200

        def broken(*_, **__):
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(RaggedForward, "logits", broken)
        monkeypatch.setattr("jacobi_forcing.serving.engine.DecodingLoop", broken)
        assert ask(url, max_tokens=3).status_code == 500
        assert ask(url, max_tokens=3).status_code == 503
        while service.engine.is_alive:
            time.sleep(0.01)
        assert httpx.get(f"{url}/health").status_code == 503


def test_a_server_whose_every_step_fails_ends_and_does_not_go_on_failing(model, monkeypatch):
    with serving(model) as (service, url):

        def broken(*_, **__):
            raise torch.OutOfMemoryError("out of memory")

        monkeypatch.setattr(RaggedForward, "logits", broken)
        found = [ask(url, max_tokens=3).status_code for _ in range(6)]
        assert found == [500] * 5 + [503]
        while service.engine.is_alive:
            time.sleep(0.01)
        assert httpx.get(f"{url}/health").status_code == 503


def test_steps_that_fail_now_and_then_end_nothing_else(model, monkeypatch):
    with serving(model) as (_, url):
        plain, is_broken = RaggedForward.logits, []

        def fails_at_times(*args):
            if is_broken:
                raise RuntimeError("of the test")
            return plain(*args)

        monkeypatch.setattr(RaggedForward, "logits", fails_at_times)
        for number in range(9):
            is_broken[:] = [1] * (number % 4 < 3)
            assert ask(url, max_tokens=3).status_code == (500 if is_broken else 200)


def test_the_cache_is_there_before_the_first_request(model):
    engine = serve.make_engine(ServeConfig(tuning="none", batch_size=3, max_tokens=50), model)
    assert engine.loop.forward.cache.nbytes == 0
    engine.reserve()
    slots = 50 + engine.loop.branch_tokens + 1
    network = model.config
    head = network.hidden_size // network.num_attention_heads
    per_slot = 2 * network.num_hidden_layers * network.num_key_value_heads * head * 4
    assert engine.loop.forward.cache.nbytes == 3 * slots * per_slot
    assert engine.loop.forward.lengths == [0] * 3


@pytest.mark.parametrize(
    ("started", "most"),
    [
        ({}, 15),
        ({"strategy": "jacobi"}, 16),
        ({"strategy": "multiblock", "max_blocks": 3}, 48),
        ({"strategy": "autoregressive"}, 15),
    ],
)
def test_the_automatic_width_reaches_what_the_server_was_started_with(model, started, most):
    config = ServeConfig(tuning="none", max_tokens=200, block_size=16, **started)
    assert serve.make_engine(config, model).loop.width.limits[-1] == most


def test_a_page_from_elsewhere_that_is_named_like_this_server_may_not_ask(model):
    """A name that was made to point here is told apart by what it says of itself."""
    config = ServeConfig(model="tiny-forced", tuning="none", max_tokens=200)
    service = serve.make_service(config, serve.make_engine(config, model))
    app = make_app(service, hosts=("127.0.0.1", "localhost", "[::1]"))
    client = TestClient(app, base_url="http://localhost:8000")
    for host, status in (
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("evil.example:8000", 403),
        ("evil.localhost:8000", 403),
        ("", 403),
    ):
        assert client.get("/v1/models", headers={"Host": host}).status_code == status, host


def test_a_page_that_may_ask_can_read_why_it_was_refused(model):
    """A browser hides replies without these headers, errors too."""
    config = ServeConfig(model="tiny-forced", tuning="none", max_tokens=200)
    service = serve.make_service(config, serve.make_engine(config, model))
    origin = "https://app.example"
    app = make_app(
        service, api_key="secret", max_body_bytes=1000, allow_origin=f"{origin}, http://b"
    )
    client, key = TestClient(app), {"Authorization": "Bearer secret"}
    for asking, allowed in ((origin, origin), ("http://b", "http://b"), ("http://c", None)):
        ours = {"Origin": asking}
        for reply, status in (
            (client.get("/v1/models", headers=ours), 401),
            (client.get("/v1/models", headers=ours | key), 200),
            (client.get("/v1/models/other", headers=ours | key), 404),
            (client.post("/v1/completions", content=b"x" * 2000, headers=ours | key), 413),
        ):
            assert reply.status_code == status
            assert reply.headers.get("access-control-allow-origin") == allowed
        before = ours | {"Access-Control-Request-Method": "POST"}
        reply = client.options("/v1/completions", headers=before)
        assert reply.status_code == (200 if allowed else 400)
        assert reply.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize(
    "own",
    [
        {"repetition_penalty": 8.0},
        {"do_sample": True},
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 7},
    ],
    ids=str,
)
def test_what_is_not_asked_for_is_as_in_the_models_own_generate(model, own, monkeypatch):
    config = transformers.GenerationConfig(**own)
    monkeypatch.setattr(model.network, "generation_config", config)
    effective, _ = model.network._prepare_generation_config(None)
    found = Reader(facts_of(model), DecoderConfig(), Limits(100, 10, 1)).defaults
    assert found.get("repetition_penalty", 1.0) == (effective.repetition_penalty or 1.0)
    assert found.get("temperature", 0.0) == (effective.temperature if config.do_sample else 0.0)
    if config.do_sample:
        assert found["top_k"] == effective.top_k
        assert found.get("top_p", 1.0) == effective.top_p


def test_forwards_are_told_where_asked_for(model, url):
    body = {"strategy": "window", "show_forwards": True}
    reply = ask(url, max_tokens=40, jacobi=body).json()
    forwards = reply["jacobi"]["forwards"]
    assert len(forwards) == reply["usage"]["forwards"]
    assert "".join(t for f in forwards for t in f["accepted"]).strip() == (
        offline(model, PROBLEM, 40).text.strip()
    )
    assert all(f["num_right"] == len(f["accepted"]) - 1 for f in forwards[:-1])
    plain = ask(url, max_tokens=40, jacobi={"strategy": "autoregressive"}).json()
    assert plain["usage"]["tokens_per_forward"] == 1.0
    assert plain["choices"] == reply["choices"]


WRONG = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": "  "}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [10**6]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": "x " * 2000}, "prompt"),
    ({"prompt": "\ud800"}, "prompt"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": 1e300}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"n": 100}, "n"),
    ({"seed": 2**64}, "seed"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["\udfff"]}, "stop"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 1000}}, "logit_bias"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "cat"}}}},
        "response_format",
    ),
    ({"tools": []}, "tools"),
    ({"jacobi": {"block_size": 999}}, "jacobi.block_size"),
    ({"jacobi": {"strategy": "multiblock", "max_blocks": 64}}, "jacobi.max_blocks"),
    ({"jacobi": {"strategy": "beam"}}, "jacobi.strategy"),
]


@pytest.mark.parametrize(
    ("wrong", "field"), WRONG, ids=[f"{f}-{i}" for i, (_, f) in enumerate(WRONG)]
)
def test_what_cannot_be_done_is_refused_by_name(url, wrong, field):
    body = json.dumps({"model": "tiny-forced", "prompt": PROBLEM} | wrong)
    reply = httpx.post(
        f"{url}/v1/completions", content=body, headers={"content-type": "application/json"}
    )
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(field)
    assert "Traceback" not in error["message"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"\xff\xfe{}", "application/json"),
        (b"[1]", "application/json"),
        (b"", "application/json"),
        (b'{"model": "tiny-forced", "prompt": "x"}', "text/plain"),
        (b'{"model": "tiny-forced", "prompt": "x"}', None),  # any web page may send that, unasked
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", "application/json"),
        (b"[" * 100_000, "application/json"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(url, content, kind):
    headers = {} if kind is None else {"content-type": kind}
    reply = httpx.post(f"{url}/v1/completions", content=content, headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_model_that_is_not_here_and_paths_that_are_not(url):
    reply = ask(url, model="gpt-4")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert "tiny-forced" in reply.json()["error"]["message"]
    assert httpx.get(f"{url}/v2").json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{url}/v1/completions").status_code == 405


def test_who_may_ask_and_how_much(model):
    with serving(model, api_key="secret", max_body_kilobytes=2) as (_, url):
        assert httpx.get(f"{url}/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
            for path in ("/v1/models", "/metrics", "/docs"):
                reply = httpx.get(url + path, headers=headers)
                assert reply.status_code == 401
                assert reply.json()["error"]["code"] == "invalid_api_key"
        right = {"authorization": "Bearer secret"}
        assert httpx.get(f"{url}/v1/models", headers=right).status_code == 200

        def pieces():
            for _ in range(40):
                yield b"x" * 100

        for content in (b"x" * 4000, pieces()):  # with a declared length, and without
            reply = httpx.post(f"{url}/v1/completions", content=content, headers=right)
            assert reply.status_code == 413
        preflight = {"origin": "http://evil.example", "access-control-request-method": "POST"}
        reply = httpx.options(f"{url}/v1/completions", headers=preflight)
        assert "access-control-allow-origin" not in reply.headers


def test_a_key_is_what_stands_on_its_line_and_without_one_it_is_said(monkeypatch, caplog):
    served = []
    monkeypatch.setattr(serve, "_run_here", served.append)
    for key in ("", "\n", "secret\n"):  # as Kubernetes gives a secret that was made from a file
        monkeypatch.setenv("JACOBI_API_KEY", key)
        serve.run(ServeConfig(host="0.0.0.0"))
    assert [config.api_key for config in served] == ["", "", "secret"]
    assert [r.getMessage() for r in caplog.records] == [
        "no --api-key: whoever reaches 0.0.0.0 may ask"
    ] * 2
    monkeypatch.setenv("JACOBI_API_KEY", "two words")
    with pytest.raises(ConfigError, match="--api-key holds spaces"):
        serve.run(ServeConfig())


def test_a_client_that_leaves_frees_its_row(model):
    with serving(model, batch_size=1, width="full") as (service, url):
        body = {
            "model": "tiny-forced",
            "prompt": "x",
            "max_tokens": 390,
            "temperature": 1.5,
            "logit_bias": {str(token): -100 for token in model.eos_ids},
            "seed": 1,
        }
        with httpx.stream("POST", f"{url}/v1/completions", json=body | {"stream": True}) as reply:
            lines = reply.iter_lines()  # kept: the connection ends with it
            next(lines)
            assert service.engine.load.running == 1
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/completions", json=body, timeout=0.2)
        began = time.monotonic()
        assert ask(url, max_tokens=5).status_code == 200
        until_idle(service)
        assert service.engine.load.tokens < 2 * 390 + 5
        assert time.monotonic() - began < 10


def test_events_come_in_order_and_wake_the_event_loop_seldom():
    """What is posted before the loop has looked at the first comes with it."""
    expected = [Forward(0, i, 0, chain([]), [], [5], []) for i in range(200)]

    class Sink:
        def __init__(self):
            self.events, self.arrived = deque(), asyncio.Event()

    async def run():
        mailbox, sink, here = Mailbox(), Sink(), asyncio.get_running_loop()
        wake, wakes = here.call_soon_threadsafe, []

        def counted(*args):
            wakes.append(args)
            return wake(*args)

        here.call_soon_threadsafe = counted
        for some in (expected[:120], expected[120:]):
            for event in some:
                mailbox.put(here, sink, 0, event)
            assert not sink.arrived.is_set()
            await asyncio.sleep(0)
            assert sink.arrived.is_set()
            sink.arrived.clear()
        assert [event for _, event in sink.events] == expected
        assert len(wakes) == 2

    asyncio.run(run())


def test_too_many_requests_are_turned_away_and_time_is_limited(model):
    endless = {str(token): -100 for token in model.eos_ids}
    with serving(model, batch_size=1, max_waiting=1, time_limit=1.0) as (service, url):
        slow = {"prompt": "x", "max_tokens": 390, "temperature": 1.5, "logit_bias": endless}
        slow |= {"jacobi": {"strategy": "autoregressive"}}
        replies = []
        threads = [
            threading.Thread(target=lambda: replies.append(ask(url, **slow))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = sorted(reply.status_code for reply in replies)
        # One ran out of time while it answered, one then, or before it began.
        assert status.count(429) == 4
        assert set(status) <= {200, 429, 503}
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        late = [reply.json() for reply in replies if reply.status_code == 200]
        ended = [reply for reply in late if reply.get("jacobi", {}).get("ended_by")]
        assert ended
        assert all(reply["choices"][0]["finish_reason"] == "length" for reply in ended)
        until_idle(service)


def test_who_runs_out_of_time_before_it_begins_is_told_to_come_again(model):
    """And not given an empty answer, which might be kept."""
    engine = serve.make_engine(ServeConfig(tuning="none", max_tokens=200), model)
    told = []
    job = Job(Request(-1, [5, 6], 10), engine.decoder, told.append, time.monotonic() - 1)
    engine.submit([job])
    engine.start()
    while not told:
        time.sleep(0.01)
    engine.close()
    assert isinstance(told[0], Failed)
    assert told[0].is_late
    assert "later" in told[0].message


def test_a_model_that_fails_ends_what_is_in_flight_and_nothing_else(model, monkeypatch):
    with serving(model) as (service, url):
        plain, calls = RaggedForward.logits, []

        def fails_once(*args):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("/secret/path of the test")
            return plain(*args)

        monkeypatch.setattr(RaggedForward, "logits", fails_once)
        reply = ask(url)
        assert reply.status_code == 500
        assert "secret" not in reply.text
        again = ask(url, max_tokens=30).json()
        assert again["choices"][0]["text"] == offline(model, PROBLEM, 30).text
        assert service.engine.load.failures == 1
        metrics = httpx.get(f"{url}/metrics").text
        assert 'jacobi_http_requests_total{status="500"} 1.0' in metrics
        assert "jacobi_time_to_first_token_seconds_count" in metrics
        until_idle(service)


def test_an_owner_that_fails_does_not_stop_the_engine():
    model, decoder, done = toy_model(), DecoderConfig(block_size=6), []

    def fails(event):
        raise RuntimeError("of the test")

    sizes = {"max_tokens": 60, "prefill_tokens": 9, "prefix_tokens": 0}
    engine = Engine(model, decoder, batch_size=2, max_waiting=9, **sizes)
    engine.start()
    for deliver in (fails, done.append):
        request = Request(-1, [5, 6, 7], 20)
        engine.submit([Job(request, decoder, deliver, time.monotonic() + 60)])
    engine.close(20)
    assert done[-1].answer_ids == offline(model, [5, 6, 7], 20).ids


def test_an_answer_that_the_end_of_the_server_breaks_off_says_so(model):
    """It had --drain-seconds, and took longer."""
    endless = {str(token): -100 for token in model.eos_ids}
    body = {"max_tokens": 390, "temperature": 1.5, "logit_bias": endless}
    with serving(model) as (service, url):
        replies = []
        thread = threading.Thread(target=lambda: replies.append(ask(url, **body)))
        thread.start()
        while not service.engine.load.running:
            time.sleep(0.01)
        service.engine.close()
        thread.join()
        assert replies[0].status_code == 500
        assert "about to stop" in replies[0].json()["error"]["message"]
        assert ask(url).status_code == 503
        assert httpx.get(f"{url}/health").status_code == 503


def test_a_port_that_is_taken_and_a_package_that_is_missing(model, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1:{port}" in error
    assert "--port 0" in error
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve"]) == 2
    assert "pip install 'jacobi-forcing[serve]'" in capsys.readouterr().err


def test_sigterm_lets_running_answers_finish(model):
    """To all of its processes, as a service manager sends it."""
    body = {"model": "tiny-forced", "prompt": PROBLEM, "stream": True, "max_tokens": 80}
    body["jacobi"] = {"strategy": "autoregressive"}
    with command() as (process, url):
        schema = {"type": "json_schema", "json_schema": {"schema": {"enum": ["yes", "no"]}}}
        found = ask(url, response_format=schema).json()["choices"][0]["text"]
        assert json.loads(found) in ("yes", "no")  # the grammar has come to the engine's process
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as reply:
            lines = reply.iter_lines()
            found = [next(lines)]
            os.killpg(process.pid, signal.SIGTERM)
            found += [line for line in lines if line]
        assert found[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in found[:-1]]
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        assert text == offline(model, PROBLEM, 80).text
        assert process.wait(30) == 128 + signal.SIGTERM
        rest = process.stderr.read()
        assert "Traceback" not in rest
        assert PROBLEM[:20] not in rest  # prompts are not logged
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_without_its_engine_the_server_ends_so_that_it_is_started_anew():
    with command() as (process, url):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\n")  # and no more: it stays open
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            (engine,) = (
                int(pid)
                for pid in children
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
            )
            os.kill(engine, signal.SIGKILL)
        assert process.wait(30) == 2
        rest = process.stderr.read()
        assert "exit code -9" in rest
        assert "jacobi serve: the engine stopped by itself" in rest
        assert "Traceback" not in rest


def test_replies_are_sent_at_once():
    """What follows a reply's head must not wait until the client has acknowledged that."""

    async def accepted():
        found = asyncio.get_running_loop().create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                found.set_result(transport)

        listening = serve._listen("127.0.0.1", 0)
        server = await asyncio.get_running_loop().create_server(Server, sock=listening)
        _, writer = await asyncio.open_connection(*listening.getsockname())
        transport = await found
        option = transport.get_extra_info("socket").getsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY
        )
        writer.close()
        transport.close()
        server.close()
        return option

    assert asyncio.run(accepted()) != 0
