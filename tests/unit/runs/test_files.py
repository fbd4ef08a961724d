"""Files of a run that are broken are named with the place, and files that are not there yet are empty."""

from pathlib import Path

import pytest

from fastslow.errors import ConfigError, ResumeError
from fastslow.runs.files import count_lines, is_run, read_lines, read_record, read_tree


def test_a_run_is_where_its_config_is(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    (tmp_path / "config.yaml").write_text("steps: 1\n", encoding="utf-8")
    assert is_run(tmp_path)


def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none", ("step",)) == []
    assert read_record(tmp_path / "none", ("step",)) == {}


def test_nothing_behind_a_torn_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    assert read_lines(path) == [{"step": 1}, {"step": 2}]
    assert count_lines(path) == 2


def test_lines_share_their_keys(tmp_path: Path) -> None:
    """10,000 lines with 70 names of their own each would be 40 MB of names."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"reward/mean": 1, "in": {"a name": 2}}\n' * 2, encoding="utf-8")
    first, second = read_lines(path)
    assert all(a is b for a, b in zip([*first, *first["in"]], [*second, *second["in"]], strict=True))


def test_a_whole_line_that_is_no_json_is_an_error_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_lines(path)
    assert str(caught.value).startswith(f"{str(path)!r} is broken: Unterminated string")


@pytest.mark.parametrize("line", ['{"note": 1}', "[1]", "3"])
def test_a_line_that_lacks_a_key_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": 2}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_lines(path, ("step", "loss"))
    assert str(caught.value) == f"{str(path)!r}, line 2: 'step' is missing: this is not the file of a run"


def test_the_first_key_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1: 'loss' is missing"):
        read_lines(path, ("step", "loss"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", " is broken: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("{}", ": 'population' is missing: this is not the file of a run"),
        ("[]", ": 'population' is missing: this is not the file of a run"),
    ],
)
def test_a_record_that_is_no_record_of_a_run_is_an_error_with_the_file(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "population.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_record(path, ("population",))
    assert str(caught.value) == f"{str(path)!r}{complaint}"


@pytest.mark.parametrize(
    ("text", "fault"), [("", "it holds nothing"), ("- a\n- b\n", "it holds list"), ("5\n", "it holds int")]
)
def test_a_config_that_is_no_mapping_is_told_with_what_it_holds(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ResumeError) as caught:
        read_tree(tmp_path / "config.yaml")
    assert str(caught.value) == (
        f"{str(tmp_path / 'config.yaml')!r} is broken: {fault}. A run is read and resumed by its config: put it back "
        "from a copy of the run"
    )


@pytest.mark.parametrize("content", [b"a: [1\n", b"\xff\xfe"])
def test_a_config_that_cannot_be_read_is_told_with_its_path_and_the_reason(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ResumeError) as caught:
        read_tree(tmp_path / "config.yaml")
    said = str(caught.value)
    assert said.startswith(f"{str(path)!r} is broken: ") and "broken: None" not in said
    assert content == b"\xff\xfe" or said.count(repr(str(path))) == 2


def test_a_config_comes_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: {b: 1}\n")
    assert read_tree(tmp_path / "config.yaml") == {"a": {"b": 1}}


def test_a_config_that_is_read_again_is_its_own_and_the_one_that_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: {b: 1}\n")
    read_tree(path)["a"]["b"] = 2
    assert read_tree(path) == {"a": {"b": 1}}
    path.write_text("a: {b: 3}\n")
    assert read_tree(path) == {"a": {"b": 3}}
