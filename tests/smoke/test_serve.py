"""`fastslow serve`: the OpenAI client against a real model, from a run and from what was exported of it."""

import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from callers import client_of
from fastslow.cli.main import main
from fastslow.deploy.serve import serve
from fastslow.deploy.server import ModelServer
from fastslow.errors import ConfigError
from fastslow.export import export
from fastslow.runs.reader import Run
from fastslow.slow.build import build_engine
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.tasks.base import with_system_prompt
from fastslow.types import Prompt

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUN = "runs/fst-lora-killed"
KEY = "a-key-of-the-tests"
EVEN, ODD = "n1000", "n1001"
"""Two problems of the run's task, one of each kind."""


@pytest.fixture(scope="module")
def fixtures() -> Iterator[None]:
    """The run names its model by a path from here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FIXTURES)
        yield


@pytest.fixture(scope="module")
def server(fixtures: None) -> Iterator[ModelServer]:
    with serve(RUN, name="letters", api_key=KEY, trust_code=True, max_request_bytes=5000, at_once=2) as server:
        yield server


@pytest.fixture
def client(server: ModelServer) -> OpenAI:
    return client_of(server.base_url, KEY)


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def sampled(prompt: Prompt, text: str, seed: int, max_tokens: int = 8) -> str:
    """What the run's own engine says to a question under a prompt."""
    run = Run(RUN)
    engine = build_engine(run.config, checkpoint=run.path / "checkpoints" / "step_2", trains=False)
    context = engine.encode(with_system_prompt(asked(text), prompt.system))
    ((completion,),) = engine.sample([SampleRequest(context, 1, seed)], SamplingParams(max_tokens, 0.6, 0.95))
    return engine.decode(completion.tokens)


def prompt_of(kind: str) -> Prompt:
    run = Run(RUN)
    return next(member for member in run.population if member.hash == run.by_kind[kind])


@pytest.mark.parametrize(
    ("model", "text", "kind"),
    [("letters", EVEN, "even"), ("letters", ODD, "odd"), ("letters", "n7?", "odd"), ("letters:even", ODD, "even")],
)
def test_what_was_trained_answers_under_the_prompt_of_the_problems_kind(
    client: OpenAI, model: str, text: str, kind: str
) -> None:
    # The best prompt of all is that of kind "odd": it answers what is no problem of the task's.
    reply = client.chat.completions.create(model=model, messages=asked(text), seed=7)
    prompt = prompt_of(kind)
    assert reply.system_fingerprint == f"step_2-{prompt.hash}"
    assert reply.choices[0].message.content == sampled(prompt, text, 7)
    assert reply.model == model
    assert reply.usage is not None and reply.usage.prompt_tokens > len(prompt.system)


def test_the_prompt_is_never_put_in_twice(client: OpenAI) -> None:
    with_it = list(with_system_prompt(asked(ODD), prompt_of("odd").system))
    first, second = (
        client.chat.completions.create(model="letters", messages=messages, seed=1) for messages in (asked(ODD), with_it)
    )
    assert first.usage == second.usage
    own = [{"role": "system", "content": "Be brief."}, *asked(ODD)]
    third = client.chat.completions.create(model="letters", messages=own, seed=1)
    assert third.usage and first.usage and third.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_conversation_goes_on_from_the_tokens_that_were_sampled(client: OpenAI, server: ModelServer) -> None:
    before = client.chat.completions.create(model="letters", messages=asked(EVEN), seed=3)
    said = before.choices[0].message.content or ""
    messages = [*asked(EVEN), {"role": "assistant", "content": said}, {"role": "user", "content": "more"}]
    client.chat.completions.create(model="letters", messages=messages, seed=4)
    known = server._conversations._known[-1]
    assert known.turn.context_tokens[: len(server._conversations._known[-2].turn.tokens)] == (
        server._conversations._known[-2].turn.tokens
    )


def test_a_stream_says_the_same(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="letters", messages=asked(EVEN), seed=5, n=2)
    texts = ["", ""]
    stream = client.chat.completions.create(
        model="letters", messages=asked(EVEN), seed=5, n=2, stream=True, stream_options={"include_usage": True}
    )
    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert usage == whole.usage


def test_how_a_completion_is_drawn_is_the_clients_to_say(client: OpenAI) -> None:
    greedy = [
        client.chat.completions.create(model="letters", messages=asked(EVEN), temperature=0, seed=seed)
        for seed in (1, 2)
    ]
    assert greedy[0].choices[0].message.content == greedy[1].choices[0].message.content
    short = client.chat.completions.create(
        model="letters", messages=asked(EVEN), max_tokens=1, temperature=2, logprobs=True
    )
    assert short.usage and short.usage.completion_tokens == 1
    assert short.choices[0].logprobs and len(short.choices[0].logprobs.content or []) == 1
    drawn = {
        client.chat.completions.create(model="letters", messages=asked(EVEN), temperature=2).choices[0].message.content
        for _ in range(6)
    }
    assert len(drawn) > 1, "without a seed each answer is drawn anew"


def test_the_models_are_the_name_and_one_for_each_kind(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["letters", "letters:even", "letters:odd"]


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"model": "gpt-5"}, 404, "There is no model 'gpt-5': take letters, letters:even, letters:odd"),
        ({"temperature": 3}, 400, "temperature: '3' is not a number from 0 to 2"),
        ({"top_p": 0}, 400, "top_p"),
        ({"seed": 2**70}, 400, "seed"),
        ({"n": 17}, 400, "n: 17 is more than 16"),
        ({"presence_penalty": 1}, 400, "presence_penalty: '1' cannot be honoured: nothing here"),
        ({"max_tokens": 5000}, 400, "do not fit: the model has 2048"),
        ({"messages": [{"role": "user", "content": "x" * 3000}]}, 400, "The context has"),
        ({"messages": [{"role": "user", "content": "x" * 6000}]}, 413, "more than --max-request-bytes = 5000"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    client: OpenAI, given: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(**{"model": "letters", "messages": asked("x"), **given})
    assert refused.value.status_code == status
    assert words in refused.value.message


def raw(server: ModelServer, **headers: str) -> tuple[int, str]:
    """A request that no client of OpenAI's makes."""
    host, _, port = server.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    body = json.dumps({"messages": asked("x")}).encode()
    connection.request("POST", "/v1/chat/completions", body, headers)
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer \xe9"}, 401),
        ({}, 401),
        ({"Authorization": f"Bearer {KEY}", "Host": "evil.example"}, 421),
        ({"Authorization": f"Bearer {KEY}", "Origin": "https://evil.example"}, 403),
    ],
)
def test_only_who_has_the_key_and_no_page_from_elsewhere_is_answered(
    server: ModelServer, headers: dict[str, str], status: int
) -> None:
    found, text = raw(server, **headers)
    assert found == status
    assert KEY not in text


def test_requests_that_wait_together_are_sampled_together_and_too_many_are_told_to_try_again(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves: list[int] = []
    begun, go_on = threading.Event(), threading.Event()
    sample = server.engine.sample

    def slow(requests: Any, params: Any) -> Any:
        waves.append(len(requests))
        begun.set()
        assert go_on.wait(20)
        return sample(requests, params)

    monkeypatch.setattr(server.engine, "sample", slow)
    found: list[int] = []
    headers = {"Authorization": f"Bearer {KEY}"}

    def ask() -> None:
        found.append(raw(server, **headers)[0])

    threads = [threading.Thread(target=ask)]
    threads[0].start()
    assert begun.wait(20)
    for _ in range(2):
        threads.append(threading.Thread(target=ask))
        threads[-1].start()
    deadline = time.monotonic() + 20
    while 429 not in found and time.monotonic() < deadline:
        time.sleep(0.02)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert sorted(found) == [200, 200, 429]
    assert waves == [1, 1]


def test_a_request_that_breaks_the_model_does_not_end_the_server(
    server: ModelServer, client: OpenAI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(requests: Any, params: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(server.engine, "sample", broken)
        with pytest.raises(openai.InternalServerError, match="the server's log says why"):
            client.chat.completions.create(model="letters", messages=asked("x"))
    assert "out of memory" in caplog.text
    assert client.chat.completions.create(model="letters", messages=asked("x")).choices


# -- exports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", [False, True])
def test_an_export_answers_as_its_run_does(merge: bool, fixtures: None, tmp_path: Path) -> None:
    export(RUN, tmp_path / "my-model", merge=merge)
    with serve(tmp_path / "my-model", trust_code=True) as server:
        client = client_of(server.base_url, "any")
        for text, kind in ((EVEN, "even"), (ODD, "odd")):
            reply = client.chat.completions.create(model="my-model", messages=asked(text), seed=7)
            assert reply.choices[0].message.content == sampled(prompt_of(kind), text, 7)


def test_an_export_is_served_where_its_task_is_not(
    fixtures: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export(RUN, tmp_path / "out")
    record = tmp_path / "out" / "fastslow.json"
    record.write_text(record.read_text().replace("toy:KindsTask", "nowhere:KindsTask"))
    with serve(tmp_path / "out", trust_code=True) as server:
        assert "the best prompt answers every question" in caplog.text
        assert "name them, for the task is not here: out:even, out:odd" in server.told().replace("(", "").replace(
            ")", ""
        )
        client = client_of(server.base_url, "any")
        reply = client.chat.completions.create(model="out", messages=asked(EVEN))
        assert reply.system_fingerprint == f"step_2-{Run(RUN).population[0].hash}"
        reply = client.chat.completions.create(model="out:even", messages=asked(EVEN))
        assert reply.system_fingerprint == f"step_2-{prompt_of('even').hash}"


def test_what_cannot_be_served_is_named_before_a_model_loads(
    fixtures: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastslow.slow.build.build_engine", lambda *a, **k: pytest.fail("a model was loaded"))
    shutil.copytree(RUN, tmp_path / "run")
    for target, options, words in (
        (tmp_path, {}, "is neither a run .* nor an export"),
        (RUN, {}, "was not made by this user"),
        (RUN, {"weights": "step_9", "trust_code": True}, "weights: 'step_9' does not exist"),
        (RUN, {"port": 70000, "trust_code": True}, "--port: 70000 is no port"),
        (RUN, {"name": "a:b", "trust_code": True}, "name: 'a:b'"),
        (RUN, {"at_once": 0, "trust_code": True}, "at_once"),
        (RUN, {"api_key": "a\nb", "trust_code": True}, "api_key"),
    ):
        with pytest.raises(ConfigError, match=words):
            serve(target, **options)
    export(RUN, tmp_path / "out")
    with pytest.raises(ConfigError, match="was not made by this user"):
        serve(tmp_path / "out")
    with pytest.raises(ConfigError, match="leave --weights out"):
        serve(tmp_path / "out", weights="step_2")
    (tmp_path / "out" / "fastslow.json").write_text('{"format": 2}')
    with pytest.raises(ConfigError, match="its format is 2"):
        serve(tmp_path / "out")
    assert main(["serve", RUN, "--trust-code", "--api-key-env", "NO_SUCH_KEY"]) == 2


@pytest.mark.slow
def test_the_command_says_where_it_is_and_ends_at_ctrl_c(fixtures: None, tmp_path: Path) -> None:
    environment = {**os.environ, "SERVED_KEY": KEY, "PYTHONPATH": os.pathsep.join([str(FIXTURES.parent), *sys.path])}
    command = [
        sys.executable,
        "-m",
        "fastslow",
        "serve",
        RUN,
        "--port",
        "0",
        "--api-key-env",
        "SERVED_KEY",
        "--trust-code",
    ]
    # As a shell starts a job in the background: with SIGINT ignored.
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    with subprocess.Popen(ignoring, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 600)[0]
            said = process.stdout.readline()
            address = said.rsplit(" ", 1)[1].strip()
            reply = client_of(address, KEY).chat.completions.create(
                model="fst-lora-killed", messages=asked(EVEN), seed=7
            )
            assert reply.choices[0].message.content == sampled(prompt_of("even"), EVEN, 7)
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()
    assert rest.endswith("ended\n")
    assert KEY not in said + rest
