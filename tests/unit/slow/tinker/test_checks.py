"""What is said before a run of `engine: tinker`. The servers here are real ones that speak HTTP and little else."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from fastslow.config import Config
from fastslow.errors import ConfigError, DivergedError
from fastslow.slow.build import check_engine
from fastslow.slow.engine import Correction, Datum, LossSettings
from fastslow.slow.tinker.checks import check_remote, read_state, server_limit
from fastslow.slow.tinker.server import api_key, check_server
from fastslow.slow.tinker.settings import TinkerConfig

from runs import small_config

pytest.importorskip("tinker", reason="the SDK is not installed: pip install 'fastslow[tinker]'")


class Handler(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, Any]] = {
        "/api/v1/healthz": {"status": "ok"},
        "/api/v1/get_server_capabilities": {
            "supported_models": [
                {"model_name": "some/model"},
                {"model_name": "short/model", "max_context_length": 4096},
            ]
        },
    }

    def do_GET(self) -> None:
        body = json.dumps(self.answers.get(self.path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def remote(url: str = "http://127.0.0.1:9", **settings: Any) -> dict[str, Any]:
    section = {"base_url": url, "backend": "jax", "connect_timeout_s": 0.2, **settings}
    return {"engine": "tinker", "tinker": section, "model": {"name": "some/model", "lora": {"rank": 4}}}


def config_of(**overrides: Any) -> Config:
    return small_config(Path("some/model"), Path("run"), **{**remote(), **overrides})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tinker": None}, "tinker: is missing: engine 'tinker' needs a section"),
        ({"tinker": {"base_url": "http://x", "backend": "vllm"}}, "tinker.backend: Input should be 'hosted', 'jax'"),
        ({"tinker": {"backend": "jax", "base_url": None}}, "tinker.base_url"),
        ({"engine": "remote"}, "engine: 'remote' is unknown: take one of local, tinker"),
    ],
)
def test_wrong_sections_say_what_is_wrong(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": {"name": "x.gguf"}}, "model.name: 'x.gguf' is a .gguf file"),
        ({"model": {"lora": {"targets": ["q_proj"]}}}, "model.lora.targets"),
        ({"model": {"lora": None}}, "model.lora: is missing: tinker.backend 'jax' trains LoRA adapters alone"),
        ({"model": {"lora": None}, "tinker": {"backend": "fsdp"}}, "slow.kl_coefficient, evaluation.kl_problems"),
        ({"slow": {"loss": "my_loss"}}, "slow.loss: 'my_loss' is not a loss of the Tinker API"),
        ({"slow": {"mismatch_correction": "mask"}}, "slow.mismatch_correction: 'mask' with engine: tinker: it needs"),
        ({"slow": {"memory_gib": 4.0}}, "slow.memory_gib: 4.0 is for engine: local"),
        ({"slow": {"loss": "gspo"}}, "slow.loss: 'gspo' is not a loss of the Tinker API"),
        (
            {"slow": {"entropy_coefficient": 0.01}},
            "slow.entropy_coefficient: 0.01 with engine: tinker: the Tinker API gives no",
        ),
        ({}, "tinker.base_url: no server answers at http://127.0.0.1:9 within 0.2 s"),
        ({"tinker": {"base_url": "localhost:8000"}}, "'localhost:8000' is no address"),
        ({"tinker": {"base_url": "http://me:secret@host"}}, "holds a user name or a password"),
        ({"tinker": {"base_url": "http://host:80?key=secret"}}, "the address at 'host' goes on behind a '.' or '#'"),
        ({"tinker": {"base_url": "http://host/v1#secret"}}, "the address at 'host' goes on behind"),
        ({"tinker": {"base_url": "host?key=secret"}}, "what stands here .not repeated.* is no address"),
        ({"tinker": {"base_url": "http://host:99999/"}}, "'http://host:99999/' is no address"),
        ({"tinker": {"backend": "hosted"}}, "tinker.api_key_env: is missing"),
        ({"tinker": {"api_key_env": "NOT_SET_ANYWHERE"}}, "environment variable 'NOT_SET_ANYWHERE' is not set"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_loads(overrides: dict[str, Any], message: str) -> None:
    tree = remote()
    merged = {
        key: {**tree[key], **value} if isinstance(value, dict) and key in tree else value
        for key, value in overrides.items()
    }
    with pytest.raises(ConfigError, match=message) as caught:
        check_remote(config_of(**merged))
    assert "secret" not in str(caught.value)


def test_distillation_is_refused_before_the_server_is_asked() -> None:
    tree = {**remote(), "method": "distill", "distill": {"prompt": "two words"}}
    with pytest.raises(ConfigError, match="method: 'distill' compares whole distributions"):
        check_engine(config_of(**tree), moves_weights=True, needs_distributions=True)


def test_a_server_with_another_model_is_refused(url: str) -> None:
    settings = TinkerConfig(base_url=url, backend="jax")
    check_server(settings, "some/model")
    with pytest.raises(
        ConfigError, match=r"tinker.base_model: the server at .* has some/model, short/model, not 'other'"
    ):
        check_server(settings, "other")


def test_a_server_that_is_something_else_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Handler.answers, "/api/v1/get_server_capabilities", {"hello": 1})
    with pytest.raises(ConfigError, match="does not speak the Tinker API"):
        check_server(TinkerConfig(base_url=url, backend="jax"), "some/model")


def test_a_key_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TinkerConfig(base_url="https://x", backend="hosted", api_key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "tml-abc")
    assert api_key(settings) == "tml-abc"
    monkeypatch.setenv("SOME_KEY", "hidden")
    with pytest.raises(ConfigError, match="no key: the SDK wants tml-") as caught:
        api_key(settings)
    assert "hidden" not in str(caught.value)


def test_a_checkpoint_of_the_other_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was not written by engine 'tinker': use engine: local"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("name", "own", "given", "expected"),
    [
        ("some/model", 512, None, 512),
        ("some/model", None, None, None),
        ("short/model", 32768, None, 4096),
        ("short/model", 512, None, 512),
        ("short/model", None, None, 4096),
        ("short/model", 512, 2048, 2048),
    ],
)
def test_the_context_is_as_long_as_the_config_says_or_else_the_shorter_of_server_and_model(
    name: str, own: int | None, given: int | None, expected: int | None, url: str
) -> None:
    config = config_of(**remote(url, context_limit=given, base_model=name))
    assert config.tinker is not None
    assert server_limit(config.model, config.tinker, own) == expected


def bare_engine() -> Any:
    """An engine that has talked to no server."""
    from fastslow.slow.tinker.engine import TinkerEngine

    engine: Any = object.__new__(TinkerEngine)
    engine.settings = SimpleNamespace(base_url="http://gpu:8000")
    return engine


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_server_that_samples_with_numbers_that_are_not_finite_ends_the_run(value: float) -> None:
    sequence = SimpleNamespace(tokens=[4, 5], logprobs=[-1.0, -2.0], stop_reason="stop")
    assert bare_engine()._completion(sequence).tokens == (4, 5)
    sequence.logprobs = [-1.0, value]
    with pytest.raises(DivergedError, match="the server at http://gpu:8000 sampled with are not finite"):
        bare_engine()._completion(sequence)


@pytest.mark.parametrize(
    ("learner", "told", "not_finite"),
    [
        ([-1.0, -2.0], {"skyrl.ai/grad_norm": 0.5}, None),
        ([-1.0, -2.0], {}, None),
        ([-1.0, -2.0], {"skyrl.ai/grad_norm": float("nan")}, "gradient"),
        ([-1.0, -2.0], {"skyrl.ai/grad_norm": float("inf")}, "gradient"),
        ([-1.0, float("nan")], {"skyrl.ai/grad_norm": 0.5}, "loss"),
    ],
)
def test_what_a_server_says_of_an_update_tells_whether_it_was_finite(
    learner: list[float], told: dict[str, float], not_finite: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastslow.slow.tinker import engine as tinker

    engine = bare_engine()
    engine.dialect, engine.policy_version = tinker.DIALECTS["fsdp"], 3
    engine._trainer = SimpleNamespace(forward_backward=lambda *a: None, optim_step=lambda adam: None)
    row = {"logprobs": SimpleNamespace(data=learner)}
    answers = [SimpleNamespace(loss_fn_outputs=[row]), SimpleNamespace(metrics=told)]
    engine.server = SimpleNamespace(wait=lambda futures: answers)
    monkeypatch.setattr(tinker, "_sent", lambda datum: datum)
    monkeypatch.setattr(engine, "_adam", lambda rate: None, raising=False)
    datums = [Datum((1, 2), (4, 5), (-1.0, -2.0), 1.0, 0.5)]
    with pytest.raises(ConfigError, match=r"slow.mismatch_correction: 'mask' with engine: tinker"):
        engine.train_step(datums, LossSettings(kl_coefficient=0.0, correction=Correction("mask")), 0.1)
    assert engine.policy_version == 3
    metrics = engine.train_step(datums, LossSettings(kl_coefficient=0.0), 0.1)
    assert metrics.not_finite == not_finite
    assert engine.policy_version == 4  # the server may have moved the weights


def test_a_server_does_not_start_from_an_adapter(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model_dir)}))
    config = config_of(model={"name": str(tmp_path), "lora": {"rank": 4}})
    with pytest.raises(ConfigError, match="is a checkpoint with an adapter, and a server starts a run from a model"):
        check_remote(config)
