"""Configs that are broken, huge or nonsense: each gives one clear error, at once."""

from pathlib import Path
from typing import Any

import pytest

from fastslow.config import load_config, parse_config
from fastslow.config.yaml_text import read_yaml
from fastslow.errors import ConfigError, FastslowError
from fastslow.plan import describe
from fastslow.resources import resolve_path
from fastslow.runs.config_text import config_text
from fastslow.runs.directory import RunDirectory
from fastslow.section import LARGEST_INTEGER

BASE = "model: {name: package:fastslow.lab/model}\ntask: {name: lab, options: {world: amber}}\n"


def nested(levels: int) -> list[Any]:
    """A list in a list, so many times."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


LEVELS = "".join(f"y{i}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]\n", "line 1: this value holds itself through an alias"),
        ("model: &m {name: *m}\n", "line 1: this value holds itself through an alias"),
        ("x: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + LEVELS, "stands for more than 100000 values, its aliases written out"),
        ("tracker: " + "[" * 60 + "]" * 60, "line 1: this is nested more than 50 levels deep"),
        ("tracker: " + "[" * 5000 + "]" * 5000, "is nested more than 50 levels deep"),
        ("tracker: " + "{a: " * 3000 + "1" + "}" * 3000, "is nested more than 50 levels deep"),
        ("seed: " + "9" * 5000, "line 1: an integer of 5000 digits is beyond"),
        ("seed: 0x" + "f" * 60, "line 1: an integer of 62 digits is beyond"),
        ("seed: 2026-13-45\n", "is not YAML: month must be in 1..12"),
        ("seed: 1\n\x01", "is not YAML: unacceptable character"),
        ("seed: !!python/object/apply:os.getcwd []\n", "is not YAML: could not determine a constructor"),
        ("? [a, b]\n: 3\n", "is not YAML: while constructing a mapping"),
        ("null: 3\n", "None: Keys should be strings"),
        ('seed: !!int ""\n', "line 1: '' is no int, as its tag !!int says: leave the tag out"),
        ("steps: 3\nseed: !!int [1]\n", "is not YAML: expected a scalar node, but found sequence"),
        ('seed: !!bool "maybe"\n', "line 1: 'maybe' is no bool, as its tag !!bool says"),
        ('seed: !!float "_"\n', "line 1: '_' is no float, as its tag !!float says"),
        ('task: {seed: !!timestamp "zzz"}\n', "line 1: 'zzz' is no timestamp, as its tag !!timestamp says"),
    ],
    ids=lambda value: value[:24].strip(),
)
def test_a_text_that_is_no_config(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("slow.learning_rate=.inf", "slow.learning_rate: Input should be a finite number, got inf"),
        ("slow.kl_coefficient=.nan", "slow.kl_coefficient: Input should be a finite number, got nan"),
        ("slow.betas=[5, -1]", "slow.betas.0: Input should be less than 1, got 5"),
        ("sampling.temperature=.inf", "sampling.temperature: Input should be a finite number"),
        ("sampling.max_tokens=1000000000000", "sampling.max_tokens: Input should be less than or equal to 1000000000"),
        ("steps=1000000000000000000", "steps: Input should be less than or equal to 1000000000"),
        ("threads=100000", "threads: Input should be less than or equal to 1024"),
        ("loop.group_size=1000000007", "loop.group_size: Input should be less than or equal to 65536"),
        ("loop.foo=1", "loop.foo: unknown key. Known here: steps_per_cycle"),
        ("loop.slow={learning_rate: 1}", "loop.slow: unknown key"),
        ("fast.foo={x: 1}", "fast.foo: unknown key"),
        ("model.chat_template_kwargs={tokenize: false}", "model.chat_template_kwargs: tokenize: fastslow itself sets"),
        ('output="a\\0b"', "output: 'a.x00b' is no path"),
        ('output="a\\nb"', "output: 'a.nb' is no path"),
        ('output="  "', "output: '  ' is no path"),
    ],
)
def test_a_value_that_makes_no_sense(override: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BASE, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])


@pytest.mark.parametrize("tree", [{"method": "x" * 100_000}, {"seed": "y" * 100_000}, {"steps": list(range(100_000))}])
def test_messages_do_not_repeat_long_values(tree: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config({"model": {"name": "m"}, "task": {"name": "star_graph"}, **tree})
    assert len(str(error.value)) < 1100
    assert next(iter(tree)) in str(error.value)


@pytest.mark.parametrize(
    "name", ["package:../..", "package:fastslow/../..", "package:fastslow.lab/", "package:fastslow"]
)
def test_a_package_path_stays_in_its_package(name: str) -> None:
    with pytest.raises(ConfigError, match="leads out of the package"):
        resolve_path(name, "model.name")


def test_targets_that_no_layer_has_are_seen_in_a_dry_run(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BASE, encoding="utf-8")
    config = load_config(path, ["sampling.max_tokens=24", "model.lora={targets: [nope]}", f"output={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=r"model.lora.targets: \['nope'\] does not fit this model"):
        describe(config)


LONG = "a" * 10_000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('steps=!!int ""', "--set 'steps=!!int \"\"', line 1: '' is no int"),
        (f"model.name={LONG}", "model.name: 'aaa.* is too long for a path: 255 bytes between two slashes"),
        (f"model.name={'b/' * 2000}", "model.name: 'b/b.* is too long for a path: .* 2000 in all"),
        (f"model.name=package:fastslow.lab/{LONG}", "model.name: 'package:.* is too long for a path"),
        (f"model.name=package:fastslow.lab/{'c/' * 900}", "model.name: 'package:.*has no file 'c/c"),
        (f"model.tokenizer={LONG}", "model.tokenizer: 'aaa.* is too long for a path"),
        (f"output={LONG}", "output: 'aaa.* is too long for a path"),
        (f"task.name={LONG}", "task.name: 'aaa.* is unknown"),
        (f"task.name={LONG}:x", "task.name: 'aaa.* cannot be imported: No module named"),
        (f"task.name={LONG}.py:x", "task.name: 'aaa.* cannot be imported"),
        (f"task.name=os:{LONG}", "task.name: 'os:aaa.* cannot be imported: module 'os' has no attribute"),
        (f"task.options.world={LONG}", "task.options.world: 'aaa.* is unknown"),
        (f"task.options.{LONG}=1", "task.options.aaa.*: unknown for 'lab'"),
        (f"slow.freeze=[{LONG}]", "slow.freeze: 'aaa.* is no name of a parameter"),
        (f"slow.loss={LONG}", "slow.loss: 'aaa.* is unknown"),
        (f"slow.loss=os:{LONG}", "slow.loss: 'os:aaa.* cannot be imported"),
        (f"model.lora={{targets: [{LONG}]}}", "model.lora.targets: .*aaa.* does not fit this model"),
        (f"model.device={LONG}", "model.device: 'aaa.* is not a device"),
        (f"slow.sampler={{kind: 'a:{LONG}'}}", "slow.sampler.kind: 'a:aaa.* cannot be imported"),
    ],
    ids=lambda value: value[:30],
)
def test_a_value_that_does_not_end_is_named_and_not_repeated(override: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BASE, encoding="utf-8")
    with pytest.raises(FastslowError, match=message) as caught:
        describe(load_config(path, ["sampling.max_tokens=24", f"output={tmp_path / 'run'}", override]))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("output", ["file", "file/run"])
def test_an_output_below_a_file_is_refused(tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="file' is no directory: take another path"):
        RunDirectory(tmp_path / output).check_free()
    RunDirectory(tmp_path / "new" / "run").check_free()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**63, "an integer of 64 bits is beyond"),
        (-(10**6000), "an integer of 19932 bits is beyond"),
        ({"deep": [{"deeper": 2**64}]}, "an integer of 65 bits is beyond"),
        ({2**70: 1}, "an integer of 71 bits is beyond"),
        (nested(45), "nested more than 40 levels deep"),
        (float("inf"), "inf is no finite number"),
        ([float("nan")], "nan is no finite number"),
    ],
    ids=["64 bits", "huge", "inside", "key", "deep", "inf", "nan"],
)
@pytest.mark.parametrize("section", ["model.chat_template_kwargs", "task.options"])
def test_what_a_run_could_not_read_again_is_refused_from_python(section: str, value: object, message: str) -> None:
    tree: dict[str, Any] = {"model": {"name": "x"}, "task": {"name": "lab"}}
    first, last = section.split(".")
    tree[first][last] = {"key": value}
    with pytest.raises(ConfigError, match=f"{section}.*{message}"):
        parse_config(tree)


def test_the_largest_integer_goes_through_the_file_of_a_run() -> None:
    config = parse_config(
        {"model": {"name": "x"}, "task": {"name": "lab", "options": {"key": LARGEST_INTEGER, "low": -LARGEST_INTEGER}}}
    )
    assert read_yaml(config_text(config))["task"]["options"] == config.task.options


@pytest.mark.parametrize("text", ["0E0", "1e6", "-3E-7", "1.5e+3", "010", "1:30", "yes", "null", "2026-01-01"])
def test_a_text_that_looks_like_something_else_goes_through_the_file_of_a_run(text: str) -> None:
    config = parse_config(
        {"model": {"name": "x"}, "task": {"name": "lab", "options": {text: text}, "seed_prompt": text}}
    )
    tree = read_yaml(config_text(config))
    assert tree["task"]["options"] == {text: text}
    assert tree["task"]["seed_prompt"] == text


def test_a_section_at_the_wrong_level_is_not_told_key_by_key() -> None:
    section = {f"key_{number}": number for number in range(40)}
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"name": "x"}, "task": {"name": "lab"}, "episodes": section})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("episodes.key_0: unknown key.")
    assert len(lines) == 13 and lines[-1] == "and 28 more"
