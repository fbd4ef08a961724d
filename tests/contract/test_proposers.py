"""One contract for every proposer that calls a server, on real HTTP; and the policy as its own proposer."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import BatchProposer, Example, ProposalRequest
from fastslow.fast.proposers.registry import build_proposer, check_proposer
from fastslow.fast.proposers.settings import ProposerConfig, proposer_config
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.types import Completion, Prompt

from chat_server import INPUT_TOKENS, OUTPUT_TOKENS, Answer, ChatServer

KEY = "sk-test-0123456789abcdef"
KEY_ENV = "FASTSLOW_TEST_REFLECTION"
PARENT = Prompt.of("You are a helpful assistant.\nAnswer in words.")
EXAMPLES = [Example("What is 2 + 2?", "four", 0.0, "Write the number in digits."), Example("1 + 1?", "2", 1.0, "")]
MODELS = {"openai": "x", "litellm": "openai/x"}
OK, FAIL = Answer(), Answer(status=500)


def config(kind: str, server: ChatServer, **changes: Any) -> ProposerConfig:
    settings = {"retries": 3, "backoff_s": 0.0, "timeout_s": 10.0, "api_key_env": KEY_ENV, **changes}
    return proposer_config(kind=kind, model=MODELS[kind], base_url=server.url, **settings)


def propose(proposer: Any, seed: int = 7) -> Any:
    return proposer.propose(PARENT, "system", EXAMPLES, seed=seed)


def failure(proposer: Any) -> tuple[str, Usage, str | None]:
    with pytest.raises(ReflectionError) as caught:
        propose(proposer)
    assert isinstance(caught.value.usage, Usage)
    return str(caught.value), caught.value.usage, caught.value.text


@pytest.fixture(params=["openai", "litellm"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "litellm":
        pytest.importorskip("litellm")
    monkeypatch.setenv(KEY_ENV, KEY)
    return str(request.param)


def test_a_reply_becomes_a_proposal_and_its_tokens_and_price_are_counted(kind: str) -> None:
    with ChatServer([OK]) as server:
        prices = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0}
        proposal = propose(build_proposer(config(kind, server, **prices), None))
        assert proposal.text == "Be brief."
        # 1000 * 2 / 1e6 + 200 * 10 / 1e6
        expected = Usage(calls=1, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, usd=pytest.approx(0.004))
        assert proposal.usage == expected
        assert server.paths == ["/v1/chat/completions"]
        assert server.keys == [f"Bearer {KEY}"]


def test_a_model_without_a_price_costs_an_unknown_sum(kind: str) -> None:
    with ChatServer([OK]) as server:
        assert propose(build_proposer(config(kind, server), None)).usage.usd is None


def test_temperature_seed_and_token_limit_are_passed_on_and_the_question_holds_what_reflection_needs(kind: str) -> None:
    with ChatServer([OK]) as server:
        proposer = build_proposer(config(kind, server, temperature=0.3, max_tokens=77), None)
        propose(proposer, seed=2**40 + 5)
        request = server.requests[0]
        assert (request["model"], request["temperature"], request["max_tokens"]) == ("x", 0.3, 77)
        assert request["seed"] == (2**40 + 5) % 2**31
        asked = "\n".join(message["content"] for message in request["messages"])
        for part in ("Answer in words.", "What is 2 + 2?", "four", "0.00", "Write the number in digits.", "'system'"):
            assert part in asked


def test_a_busy_server_is_waited_for_as_long_as_it_asks(kind: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    busy = [Answer(status=429, headers={"Retry-After": value}) for value in ("7", date)]
    with ChatServer([*busy, OK]) as server:
        proposer: Any = build_proposer(config(kind, server), None)
        waits: list[float] = []
        proposer.model.sleep = waits.append
        usage = propose(proposer).usage
        assert waits[0] == 7.0
        assert 30.0 < waits[1] <= 40.0
        assert (usage.calls, usage.failures, len(server.requests)) == (3, 2, 3)


def test_a_server_that_asks_for_an_hour_is_not_waited_for(kind: str) -> None:
    with ChatServer([Answer(status=429, headers={"Retry-After": "3600"}), OK]) as server:
        message, usage, _ = failure(build_proposer(config(kind, server), None))
        assert "429" in message
        assert usage == Usage(calls=1, failures=1)


def test_a_server_error_is_tried_again_with_growing_waits(kind: str) -> None:
    with ChatServer([FAIL, FAIL, OK]) as server:
        proposer: Any = build_proposer(config(kind, server, backoff_s=2.0), None)
        waits: list[float] = []
        proposer.model.sleep = waits.append
        usage = propose(proposer).usage
        assert (usage.calls, usage.failures) == (3, 2)
        assert 1.0 <= waits[0] <= 3.0
        assert 2.0 <= waits[1] <= 6.0
        again: list[float] = []
        server.requests.clear()
        proposer.model.sleep = again.append
        propose(proposer)
        assert again == waits


@pytest.mark.parametrize("answer", [FAIL, Answer(body="{not json"), Answer(body="{}"), Answer(status=408)])
def test_a_server_that_stays_down_fails_for_good_and_every_attempt_is_counted(kind: str, answer: Answer) -> None:
    with ChatServer([answer]) as server:
        _, usage, text = failure(build_proposer(config(kind, server, retries=2), None))
        assert usage == Usage(calls=3, failures=3)
        assert len(server.requests) == 3
        assert text is None


def test_a_malformed_answer_is_tried_again(kind: str) -> None:
    with ChatServer([Answer(body="{not json"), Answer(body="{}"), OK]) as server:
        usage = propose(build_proposer(config(kind, server), None)).usage
        assert (usage.calls, usage.failures) == (3, 2)


def test_a_timeout_is_tried_again(kind: str) -> None:
    with ChatServer([Answer(delay_s=1.0), OK]) as server:
        usage = propose(build_proposer(config(kind, server, timeout_s=0.3), None)).usage
        assert (usage.calls, usage.failures) == (2, 1)


def test_a_server_that_is_not_there_fails_for_good(kind: str) -> None:
    with ChatServer([OK]) as server:
        settings = config(kind, server, retries=1)
    message, usage, _ = failure(build_proposer(settings, None))
    assert usage == Usage(calls=2, failures=2)
    assert "onnection" in message


@pytest.mark.parametrize(
    ("status", "way_out"),
    [(400, "max_tokens"), (401, "api_key_env"), (403, "another model"), (404, "base_url")],
)
def test_a_refused_call_fails_at_once_and_says_what_to_do(kind: str, status: int, way_out: str) -> None:
    with ChatServer([Answer(status=status), OK]) as server:
        message, usage, _ = failure(build_proposer(config(kind, server), None))
        assert usage == Usage(calls=1, failures=1)
        assert len(server.requests) == 1
        assert str(status) in message
        assert way_out in message


@pytest.mark.parametrize(
    ("answer", "words", "text"),
    [
        (Answer(text=""), "empty", None),
        (Answer(text="<new_prompt>  \n </new_prompt>"), "empty", None),
        (Answer(text="<new_prompt>Be", finish_reason="length"), "truncated", "Be"),
        (Answer(text="<new_prompt>Be brief.</new_prompt>", finish_reason="length"), "truncated", "Be brief."),
        (Answer(text="<new_prompt>Be brief."), "never closed", "Be brief."),
        (Answer(text="Be brief."), "has no <new_prompt>", "Be brief."),
        (Answer(text=f"<new_prompt>{'a' * 101}</new_prompt>"), "101 characters", "a" * 101),
        (Answer(text=f"<new_prompt>{PARENT.system}</new_prompt>"), "unchanged", PARENT.system),
        (Answer(text="<new_prompt>x</new_prompt>", finish_reason="content_filter"), "content_filter", "x"),
    ],
)
def test_a_broken_reply_is_refused_counted_and_paid_for(kind: str, answer: Answer, words: str, text: str) -> None:
    with ChatServer([answer]) as server:
        message, usage, refused = failure(build_proposer(config(kind, server, max_prompt_chars=100), None))
        assert words in message
        assert refused == text
        assert (usage.calls, usage.failures, usage.refused) == (1, 0, 1)
        assert (usage.input_tokens, usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_no_key_reaches_a_message_or_a_log(
    kind: str, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_OTHER_TOKEN", "hf_0123456789")
    body = json.dumps({"error": {"message": f"bad key {KEY}, got header Bearer {KEY} and hf_0123456789"}})
    with ChatServer([Answer(status=status, body=body)]) as server:
        with caplog.at_level("DEBUG"), pytest.raises(ReflectionError) as caught:
            propose(build_proposer(config(kind, server, retries=0), None))
        assert "[secret]" in str(caught.value)
        for text in (str(caught.value), caplog.text):
            assert KEY not in text
        assert "hf_0123456789" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert KEY not in repr(caught.value.__context__)


def test_a_server_without_a_key_gets_none_of_the_environment(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer([OK]) as server:
        propose(build_proposer(config(kind, server, api_key_env=None), None))
        assert server.keys == ["Bearer no-key"]


def test_a_batch_goes_out_side_by_side_and_one_failure_costs_one_child(kind: str) -> None:
    def answer(number: int, request: dict[str, Any]) -> Answer:
        text = request["messages"][-1]["content"]
        return Answer(status=400) if "parent 2" in text else Answer(text="<new_prompt>ok</new_prompt>", delay_s=0.2)

    with ChatServer(answer) as server:
        proposer = build_proposer(config(kind, server), None)
        assert isinstance(proposer, BatchProposer)
        requests = [ProposalRequest(Prompt.of(f"parent {i}"), "system", tuple(EXAMPLES), i) for i in range(6)]
        begin = datetime.now(UTC)
        outcomes = proposer.propose_batch(requests)
        assert (datetime.now(UTC) - begin).total_seconds() < 5 * 0.2
        assert [isinstance(outcome, ReflectionError) for outcome in outcomes] == [i == 2 for i in range(6)]


# -- the policy as its own proposer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> LocalEngine:
    return LocalEngine(ModelConfig(name=str(tiny_model_dir)), SlowConfig(), seed=0, threads=1)


def policy(engine: Any, **changes: Any) -> Any:
    settings = proposer_config(kind="policy", **{"max_tokens": 16, **changes})
    check_proposer(settings)
    return build_proposer(settings, engine)


def test_what_a_tiny_policy_babbles_is_refused_and_its_tokens_are_counted(engine: LocalEngine) -> None:
    _, usage, _ = failure(policy(engine))
    assert (usage.calls, usage.failures, usage.refused, usage.usd) == (1, 0, 1, 0.0)
    assert usage.input_tokens > 1000
    assert 1 <= usage.output_tokens <= 16


def test_the_policy_can_write_a_child(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = "<think>tags like <new_prompt> are kept</think> Why: words.\n<new_prompt>Use digits.</new_prompt>"
    written = (*engine.tokenizer(reply)["input_ids"], engine.tokenizer.eos_token_id)
    asked: list[tuple[SampleRequest, SamplingParams]] = []

    def sample(requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        asked.extend((request, params) for request in requests)
        return [[Completion(written, (-0.1,) * len(written), "stop")] * request.n for request in requests]

    monkeypatch.setattr(engine, "sample", sample)
    proposal = propose(policy(engine, max_tokens=256, temperature=0.5))
    assert proposal.text == "Use digits."
    ((request, params),) = asked
    assert (request.n, params.max_tokens, params.temperature) == (1, 256, 0.5)
    question = engine.decode(request.context_tokens)
    for part in ("Answer in words.", "What is 2 + 2?", "four", "Write the number in digits."):
        assert part in question
    expected = Usage(
        calls=1,
        input_tokens=len(request.context_tokens),
        output_tokens=len(written),
        usd=0.0,
        sampled=1,
        sampled_tokens=len(written),
    )
    assert proposal.usage == expected


def test_the_policy_answers_a_batch_in_one_call_and_the_same_for_the_same_seed(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    sample = engine.sample
    monkeypatch.setattr(engine, "sample", lambda requests, params: calls.append(sample(requests, params)) or calls[-1])
    proposer = policy(engine, temperature=5.0)  # hot, so that two seeds cannot agree by chance
    requests = [ProposalRequest(PARENT, "system", tuple(EXAMPLES), seed) for seed in (1, 2, 1)]
    outcomes = proposer.propose_batch(requests)
    assert len(outcomes) == 3
    assert len(calls) == 1
    first, second, third = (group[0].tokens for group in calls[0])
    assert first == third != second
    assert str(outcomes[0]) == str(outcomes[2])


def test_examples_are_shortened_until_they_fit_the_policy(engine: LocalEngine) -> None:
    long = [Example("q" * 3000, "a" * 3000, 0.0, "f" * 3000)]
    with pytest.raises(ReflectionError) as caught:
        policy(engine).propose(PARENT, "system", long, seed=1)
    usage: Any = caught.value.usage
    assert usage.refused == 1
    assert usage.input_tokens + 16 <= 2048


def test_a_question_that_never_fits_the_policy_is_a_failure_that_names_the_fields(engine: LocalEngine) -> None:
    with pytest.raises(ReflectionError, match=r"fast\.proposer\.max_tokens") as caught:
        policy(engine).propose(Prompt.of("x" * 2048), "system", EXAMPLES, seed=1)
    assert caught.value.usage == Usage(calls=1, failures=1)
