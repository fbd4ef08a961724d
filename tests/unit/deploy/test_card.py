"""The model card of an export: its header, its commands, and what it says of a base that nobody else has."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastslow.deploy.card import Card, render, vllm_rank
from fastslow.deploy.weights import adapter_rank
from fastslow.types import Prompt

from runs import small_config


def card(base: str = "org/base-7b", **options: Any) -> str:
    config = small_config(Path(base), Path("runs/x"), method="rl")
    options = {"name": "my-model", "step": 7, **options}
    return render(Card(config=config, prompt=Prompt.of("go"), curve=[], base=base, **options))


def header_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^vllm serve .*$", text, re.MULTILINE)]


@pytest.mark.parametrize(("rank", "allowed"), [(1, 1), (2, 8), (4, 8), (16, 16), (17, 32), (300, 320), (512, 512)])
def test_the_rank_is_one_that_vllm_takes(rank: int, allowed: int) -> None:
    assert vllm_rank(rank) == allowed
    (command,) = commands(card(rank=rank))
    assert command == [
        "vllm", "serve", "org/base-7b", "--enable-lora", "--max-lora-rank", str(allowed), "--lora-modules",
        "my-model=.",
    ]  # fmt: skip


def test_an_adapter_that_vllm_cannot_hold_has_no_command_for_it() -> None:
    text = card(rank=513)
    assert commands(text) == []
    assert "this one has 513: fastslow export --merge" in text


def test_the_rank_of_an_adapter_is_the_largest_of_its_layers() -> None:
    assert adapter_rank({"r": 4}) == 4
    assert adapter_rank({"r": 4, "rank_pattern": {"q_proj": 16, "v_proj": 2}}) == 16


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rank": 8}, {"library_name": "peft", "base_model": "org/base-7b", "base_model_relation": "adapter"}),
        ({}, {"library_name": "transformers", "base_model": "org/base-7b", "base_model_relation": "finetune"}),
        ({"license": "apache-2.0"}, {"license": "apache-2.0"}),
        ({}, {"license": "unknown"}),
    ],
)
def test_the_header_is_what_hubs_read(options: dict[str, Any], expected: dict[str, Any]) -> None:
    header = header_of(card(**options))
    assert expected.items() <= header.items()
    assert header["pipeline_tag"] == "text-generation"
    assert {"fastslow", "rl"} <= set(header["tags"])


def test_a_base_that_only_the_training_machine_has_is_not_passed_off_as_a_hubs(tmp_path: Path) -> None:
    for base in (str(tmp_path), "package:fastslow.lab/model", "/no/longer/there"):
        text = card(base, rank=8)
        assert "base_model" not in header_of(text)
        assert "The base model is not here" in text and "--base-model ID" in text
    assert "it is not needed here" in card(str(tmp_path))
    assert str(tmp_path.parent) not in card(str(tmp_path)), "whole weights need no place of it"
    assert "not here" not in card(rank=8)


def test_a_name_of_blanks_and_quotes_stays_one_word() -> None:
    (command,) = commands(card(rank=8, name="my 'own' model"))
    assert command[-1] == "my 'own' model=."
    assert "model=\"my 'own' model\"" in card(name="my 'own' model")
