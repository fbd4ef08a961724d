"""Any config text, and any value anywhere in a config: it is read, or one error says what is wrong."""

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from fastslow.config import load_config, parse_config
from fastslow.config.yaml_text import read_yaml
from fastslow.errors import FastslowError
from fastslow.runs.directory import config_text

from fuzz_values import FUZZ, TEXTS, changed_bytes, changed_tree
from runs import small_config

WHOLE = small_config(Path("some/model"), Path("run")).model_dump(mode="json")
TEXT = yaml.safe_dump(WHOLE, sort_keys=False).encode()
LONGEST_ERROR = 3000


def read(tree: Any) -> None:
    """Parse a tree. What is accepted comes back from its own text; what is not has a message that can be read."""
    try:
        config = parse_config(tree)
    except FastslowError as error:
        assert 0 < len(str(error)) < LONGEST_ERROR
        return
    again = read_yaml(config_text(config))
    again.pop("versions")
    assert parse_config(again, recorded=True) == config


@FUZZ
@given(changed_tree(WHOLE))
def test_a_value_that_was_changed(tree: Any) -> None:
    read(tree)


@FUZZ
@given(changed_bytes(TEXT))
def test_a_file_that_was_changed(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(data)
    try:
        load_config(path)
    except FastslowError as error:
        assert 0 < len(str(error)) < LONGEST_ERROR


@FUZZ
@given(st.one_of(st.text(), TEXTS, st.text(alphabet="&*[]{}:,!#|>-?'\"%@` \n\tab01.~")))
def test_any_text_as_yaml(text: str) -> None:
    try:
        read_yaml(text)
    except FastslowError as error:
        assert str(error)


@FUZZ
@given(TEXTS, TEXTS)
def test_any_override(tmp_path_factory: Any, key: str, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "whole.yaml"
    path.write_bytes(TEXT)
    try:
        load_config(path, [f"{key}={value}", f"seed={value}"])
    except FastslowError as error:
        assert 0 < len(str(error)) < LONGEST_ERROR
