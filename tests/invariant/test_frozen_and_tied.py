"""Parameters that stay, and weights that are one: what moves, what is saved, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.plan import describe
from fastslow.slow.engine import Datum, LossSettings
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.frozen import empty_model, frozen_parameters
from fastslow.slow.settings import ModelConfig, SlowConfig

from runs import record_of, small_config
from tiny import make_tokenizer

DATUMS = [
    Datum((20, 21, 22), (30, 31, 5), (-2.0, -3.0, -1.0), 1.0, 0.1),
    Datum((20, 21, 23), (40, 20, 5), (-2.0, -1.0, -2.0), -1.0, 0.2),
]
LOSS = LossSettings("importance_sampling", kl_coefficient=0.0)
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def tied_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose head is its table of embeddings."""
    directory, tokenizer = tmp_path_factory.mktemp("tied"), make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make(directory: Path, dtype: str = "float32", **slow: Any) -> LocalEngine:
    model = ModelConfig.model_validate({"name": str(directory), "device": "cpu", "dtype": dtype})
    return LocalEngine(model, SlowConfig.model_validate({"max_grad_norm": None, **slow}))


def reference_gradients(directory: Path) -> dict[str, torch.Tensor]:
    """Those of importance sampling, with nothing of the engine in them."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
    loss = torch.zeros((), dtype=torch.float64)
    for datum in DATUMS:
        logits = model(input_ids=torch.tensor([[*datum.context_tokens, *datum.completion_tokens]])).logits[0]
        targets = torch.tensor(datum.completion_tokens)[:, None]
        learner = logits[len(datum.context_tokens) - 1 : -1].log_softmax(-1).gather(1, targets)[:, 0]
        ratio = (learner - torch.tensor(datum.sampler_logprobs)).exp()
        loss = loss - datum.token_weight * (ratio * datum.advantage).sum()
    loss.backward()
    return {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}


def first_moments(engine: LocalEngine) -> dict[str, torch.Tensor]:
    """The gradients of a first update: Adam's first moment is a tenth of them."""
    adam = engine.learner.optimiser
    return {name: 10 * adam.adam.state[master]["exp_avg"] for name, master in adam.masters.items()}


# -- tied weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tied_table_has_one_master_and_stays_tied_and_is_saved_once(
    tied_dir: Path, tmp_path: Path, dtype: str
) -> None:
    engine = make(tied_dir, dtype)
    assert TABLE in engine.learner.optimiser.masters and HEAD not in engine.learner.optimiser.masters
    before = engine.model.get_input_embeddings().weight.detach().clone()
    engine.train_step(DATUMS, LOSS, 1e-2)
    engine.save(tmp_path, resumable=True)
    network = engine.model
    assert network.get_input_embeddings().weight is network.get_output_embeddings().weight
    assert not torch.equal(before, network.get_input_embeddings().weight)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert TABLE in file.keys() and HEAD not in file.keys()  # noqa: SIM118
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert read.get_input_embeddings().weight is read.get_output_embeddings().weight
    assert torch.equal(read.get_input_embeddings().weight, network.get_input_embeddings().weight.to(read.dtype))


def test_the_gradient_of_a_tied_table_is_the_sum_of_both_uses(tied_dir: Path) -> None:
    engine = make(tied_dir)
    engine.train_step(DATUMS, LOSS, 1e-30)
    got, expected = first_moments(engine), reference_gradients(tied_dir)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-6)


def test_a_resumed_engine_with_tied_weights_goes_on_bit_for_bit(tied_dir: Path, tmp_path: Path) -> None:
    one, two = make(tied_dir), make(tied_dir)
    one.train_step(DATUMS, LOSS, 1e-2)
    one.save(tmp_path, resumable=True)
    two.load(tmp_path)
    for engine in (one, two):
        engine.train_step(DATUMS, LOSS, 1e-2)
    assert two.model.get_input_embeddings().weight is two.model.get_output_embeddings().weight
    states = [engine.model.state_dict() for engine in (one, two)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


# -- frozen parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("patterns", [[TABLE, "model.layers.0.*"], ["*.self_attn.*", HEAD]])
def test_what_is_frozen_stays_and_all_else_has_its_gradient(
    tiny_model_dir: Path, patterns: list[str], sharing: bool
) -> None:
    engine = make(tiny_model_dir, freeze=patterns, prefix_sharing=sharing)
    start = {name: value.clone() for name, value in engine.model.state_dict().items()}
    engine.train_step(DATUMS, LOSS, 1e-30)
    got, expected = first_moments(engine), reference_gradients(tiny_model_dir)
    assert got.keys() < expected.keys()
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    engine.train_step(DATUMS, LOSS, 1e-2)
    moved = {name for name, value in engine.model.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == got.keys()


def test_a_run_with_frozen_parameters_is_resumed_bit_for_bit(tiny_model_dir: Path, tmp_path: Path) -> None:
    slow = {"freeze": [TABLE, "model.layers.0.*"]}
    whole, cut = (
        small_config(tiny_model_dir, tmp_path / name, method="rl", steps=2, checkpoint_every=1, slow=slow)
        for name in ("whole", "cut")
    )
    assert "all but 0.01 M of them are trained" in describe(whole)
    train(whole)
    train(cut.model_copy(update={"steps": 1}))
    train(cut, resume=tmp_path / "cut")
    assert record_of(tmp_path / "cut")["weights"] == record_of(tmp_path / "whole")["weights"]
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "checkpoints" / "step_2").state_dict()
    start = AutoModelForCausalLM.from_pretrained(tiny_model_dir).state_dict()
    stays = {name for name, value in start.items() if torch.equal(value, trained[name])}
    assert stays == {TABLE} | {name for name in start if name.startswith("model.layers.0.")}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["model.layer.0.*"], r"'model.layer.0.\*' is no name of a parameter, .* Near it: model.layers.0"),
        (["lm_haed.weight"], "'lm_haed.weight' is no name .* Near it: lm_head.weight"),
        (["*"], r"\['\*'\] name every parameter, so that nothing would be trained"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused_before_the_model_loads(
    tiny_model_dir: Path, tmp_path: Path, patterns: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    config = small_config(tiny_model_dir, tmp_path / "run", slow={"freeze": patterns})
    for check in (train, describe):
        with pytest.raises(ConfigError, match=f"slow.freeze: {message}"):
            check(config)
    assert not (tmp_path / "run").exists()


def test_tied_weights_are_named_by_all_of_their_names(tied_dir: Path) -> None:
    model = empty_model(ModelConfig(name=str(tied_dir)))
    for one, other in ((TABLE, HEAD), (HEAD, TABLE)):
        with pytest.raises(ConfigError, match=f"slow.freeze: {one} is tied to {other}, so that both would stay"):
            frozen_parameters(model, [one])
    assert frozen_parameters(model, [TABLE, HEAD]) == [model.get_input_embeddings().weight]


def test_an_adapter_has_nothing_of_the_model_to_freeze(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = small_config(
        tiny_model_dir, tmp_path / "run", slow={"freeze": [HEAD]}, model={"lora": {"rank": 2, "alpha": 4}}
    )
    with pytest.raises(
        ConfigError, match=r"slow.freeze: \['lm_head.weight'\] with model.lora: the adapter alone is trained"
    ):
        train(config)
