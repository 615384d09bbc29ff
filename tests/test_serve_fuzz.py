"""Whatever a client sends, it is answered: never with our mistake, never not at all."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("uvicorn", reason="needs the serve extra")
schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

from test_serve import serving  # noqa: E402

from jacobi_forcing.models import load_model  # noqa: E402


@pytest.fixture(scope="module")
def address():
    model = load_model("tiny-forced")
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with serving(model, max_new_tokens=8, max_tokens=200, time_limit=2.0) as (service, url):
        yield url
        assert service.engine.load.failures == 0


@pytest.fixture(scope="module")
def schema(address):
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_every_request_is_answered(schema, path, mode):
    """Bodies that follow the OpenAPI schema, and bodies that break it somewhere."""
    statuses = Counter()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(schema[path]["POST"].as_strategy(generation_mode=mode))
    def answered(case):
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "tiny-forced"  # or most would get no further than to its name
        reply = case.call(timeout=20)
        statuses[reply.status_code] += 1
        assert reply.status_code < 500, (case.body, reply.text)
        if reply.status_code >= 400:
            error = reply.json()["error"]
            assert error["message"]
            assert "Traceback" not in error["message"]
            assert set(error) == {"message", "type", "param", "code"}

    answered()
    assert statuses[400] > 0
    assert mode.is_negative or statuses[200] > 10
