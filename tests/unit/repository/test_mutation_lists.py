"""What tools/mutants.py works from keeps up with the package: modules, tests, and mutants that no test can notice."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location("mutants", ROOT / "tools" / "mutants.py")
assert SPEC is not None
assert SPEC.loader is not None
mutants = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mutants)


@pytest.mark.parametrize("module", mutants.MODULES)
def test_a_module_under_mutation_and_its_tests_are_there(module: str) -> None:
    assert (ROOT / mutants.PACKAGE / module).is_file()
    assert all((ROOT / path).is_file() for path in mutants.MODULES[module])


@pytest.mark.parametrize("module", mutants.equivalent_mutants())
def test_an_equivalent_mutant_has_a_reason_and_its_line_still_stands_in_the_module(module: str) -> None:
    lines = (ROOT / mutants.PACKAGE / module).read_text(encoding="utf-8").splitlines()
    stripped = {line.strip() for line in lines}
    entries = mutants.equivalent_mutants()[module]
    assert all(entry["reason"] for entry in entries)
    assert [entry["before"] for entry in entries if entry["before"] not in stripped] == []


def test_the_share_is_of_the_mutants_that_a_test_can_notice() -> None:
    table = mutants.table(
        {
            "a.py": {"mutants": 12, "killed": 9, "equivalent": 2},
            "b.py": dict.fromkeys(["mutants", "killed", "equivalent"], 0),
        }
    )
    assert "| a.py | 12 | 9 | 1 | 2 | 90.0 % |" in table
    assert "| b.py | 0 | 0 | 0 | 0 | 100.0 % |" in table
