"""Files of a run that are broken are named with the place, and files that are not there yet are empty."""

from pathlib import Path

import pytest

from fastslow.errors import ConfigError
from fastslow.runs.files import is_run, read_lines, read_record


def test_a_run_is_where_its_config_is(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    (tmp_path / "config.yaml").write_text("steps: 1\n", encoding="utf-8")
    assert is_run(tmp_path)


def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none", ("step",)) == []
    assert read_record(tmp_path / "none", ("step",)) == {}


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
