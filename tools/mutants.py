"""Mutation tests: does the suite notice when a line of the package says something else?

    python tools/mutants.py                              # every module, one at a time; writes the table
    python tools/mutants.py slow/losses.py --show        # one module, with every mutant that lives
    python tools/mutants.py slow/losses.py --keep work   # leaves mutmut's directory in work/ for `mutmut browse`
    python tools/mutants.py slow/losses.py --keep work --living   # then tries new tests on the mutants that lived there

mutmut (`pip install 'fastslow[mutation]'`) changes one operator, constant, argument or name at a time, and runs the
unit tests that belong to the module. Each mutant is a fork of a process that has the package in memory, so torch is
loaded once a module. A mutant that no test notices has to be killed by a new test, or to stand in
tools/equivalent_mutants.toml with a reason why no test can notice it. The exit status is 1 where a module falls below
the goal or the list is stale.

What mutmut leaves alone: decorated functions, code outside functions, and string constants in triple quotes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src") / "fastslow"
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
TABLE = RESULTS.with_suffix(".md")
EQUIVALENT = ROOT / "tools" / "equivalent_mutants.toml"
GOAL = 0.9
"""Of the mutants that a test can notice at all, the share that the tests must notice, in each module."""
MODULES: Mapping[str, tuple[str, ...]] = {
    "seeding.py": ("tests/unit/test_seeding.py",),
    "slow/losses.py": ("tests/unit/slow/test_losses.py", "tests/unit/slow/test_loss_words.py"),
    "slow/advantages.py": ("tests/unit/slow/test_advantages.py",),
    "slow/local/forest.py": ("tests/unit/slow/local/test_forest.py",),
    "fast/pareto.py": ("tests/unit/fast/test_pareto.py",),
    "rollouts/store.py": ("tests/unit/rollouts/test_store.py",),
    "training/curriculum.py": ("tests/unit/training/test_curriculum.py",),
    "runs/files.py": (
        "tests/unit/runs/test_files.py",
        "tests/unit/runs/test_directory.py",
        "tests/unit/runs/test_format.py",
    ),
    "runs/family.py": ("tests/unit/runs/test_family.py",),
    "runs/config_text.py": ("tests/unit/runs/test_format.py",),
    "runs/directory.py": (
        "tests/unit/runs/test_directory.py",
        "tests/unit/runs/test_format.py",
        "tests/unit/runs/test_refusals.py",
    ),
}
"""The modules under mutation, each with the unit tests that belong to it."""
KILLED = frozenset({"killed", "timeout", "segfault", "suspicious"})
"""What mutmut calls the ways in which a mutant is noticed."""


@dataclass(frozen=True)
class Mutant:
    """One mutant that the tests did not notice: the lines that it replaces, and what it puts there."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Verdict:
    """What came of one module. `equivalent` are survivors that stand in the list, `stale` are entries without one."""

    module: str
    mutants: int
    killed: int
    equivalent: int
    survivors: tuple[Mutant, ...]
    stale: tuple[str, ...]

    @property
    def share(self) -> float:
        """Killed mutants among those that a test can notice."""
        possible = self.mutants - self.equivalent
        return self.killed / possible if possible else 1.0

    @property
    def good(self) -> bool:
        """Whether the module reaches the goal and every entry of the list says something."""
        return self.share >= GOAL and not self.stale


def main() -> int:
    """Test the modules that were asked for, and bring the table up to date after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="below src/fastslow; all of the list by default")
    parser.add_argument("--show", action="store_true", help="print what every living mutant changes")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work there and leave mutmut's files")
    parser.add_argument(
        "--living", action="store_true", help="with --keep: run again what lived there, and changed lines"
    )
    parser.add_argument("--processes", type=int, default=1, help="mutants that run side by side (1)")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - set(MODULES)
    if unknown:
        parser.error(
            f"{', '.join(sorted(unknown))}: not under mutation, add the module to MODULES in {Path(__file__).name}"
        )
    verdicts = []
    for module in arguments.modules or MODULES:
        verdict = test_module(module, arguments.keep, arguments.processes, only_living=arguments.living)
        verdicts.append(verdict)
        record(verdict)
        print(_row(verdict), flush=True)
        for mutant in verdict.survivors if arguments.show else ():
            print(f"  {mutant.name.rpartition('.')[2]}\n    - {mutant.before}\n    + {mutant.after}")
        for entry in verdict.stale:
            print(f"  {EQUIVALENT.name}: no living mutant any more: {entry}")
    return 0 if all(verdict.good for verdict in verdicts) else 1


def test_module(module: str, keep: Path | None, processes: int, *, only_living: bool = False) -> Verdict:
    """Run mutmut over one module with its own tests, in a copy of the tree.

    `only_living` goes on in `keep`: it runs the mutants of changed functions and those that lived. More tests cannot
    revive the others; after a test was taken away or weakened, a whole run is due.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) if keep is None else keep.resolve() / module.replace("/", "_").removesuffix(".py")
        if not only_living:
            shutil.rmtree(place / "mutants", ignore_errors=True)
        _prepare(place, module)
        children = ("--max-children", str(processes))
        _mutmut(place, "run", *children)
        living = [name for name, status in _statuses(place).items() if status not in KILLED]
        if only_living and living:
            _mutmut(place, "run", *children, *living)
        status_by_name = _statuses(place)
        survivors = [_mutant(place, name) for name, status in status_by_name.items() if status not in KILLED]
    entries = [(entry["before"], entry["after"]) for entry in equivalent_mutants().get(module, [])]
    found = [(mutant.before, mutant.after) for mutant in survivors]
    return Verdict(
        module=module,
        mutants=len(status_by_name),
        killed=len(status_by_name) - len(survivors),
        equivalent=sum(pair in entries for pair in found),
        survivors=tuple(mutant for mutant, pair in zip(survivors, found, strict=True) if pair not in entries),
        stale=tuple(f"{before} -> {after}" for before, after in entries if (before, after) not in found),
    )


def equivalent_mutants() -> dict[str, list[dict[str, str]]]:
    """By module the mutants that no test can notice: `before`, `after` and `reason`."""
    return tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))


def record(verdict: Verdict) -> None:
    """Put a verdict into the committed results, and write the table anew."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    known[verdict.module] = {
        "mutants": verdict.mutants,
        "killed": verdict.killed,
        "equivalent": verdict.equivalent,
        "survivors": [f"{mutant.before} -> {mutant.after}" for mutant in verdict.survivors],
    }
    known = {module: known[module] for module in MODULES if module in known}
    RESULTS.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    TABLE.write_text(table(known), encoding="utf-8")


def table(known: Mapping[str, Mapping[str, object]]) -> str:
    """The table in Markdown."""
    rows = [
        "# Mutants",
        "",
        "Made by `make mutants` (tools/mutants.py, mutmut). Killed: a unit test of the module fails. "
        "Equivalent: no test can",
        "notice it, the reason stands in tools/equivalent_mutants.toml. The share is of those that are not equivalent.",
        "",
        "| module | mutants | killed | survived | equivalent | share killed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for module, counts in known.items():
        mutants, killed, equivalent = (int(str(counts[name])) for name in ("mutants", "killed", "equivalent"))
        share = killed / (mutants - equivalent) if mutants > equivalent else 1.0
        survived = mutants - killed - equivalent
        rows.append(f"| {module} | {mutants} | {killed} | {survived} | {equivalent} | {100 * share:.1f} % |")
    return "\n".join(rows) + "\n"


def _prepare(place: Path, module: str) -> None:
    """The package, the tests and mutmut's settings."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", place / "src", ignore=ignore, dirs_exist_ok=True)
    shutil.copytree(ROOT / "tests", place / "tests", ignore=ignore, dirs_exist_ok=True)
    settings = {
        "source_paths": [str(PACKAGE)],
        "only_mutate": [str(PACKAGE / module)],
        "pytest_add_cli_args": ["-p", "no:xdist", "-p", "no:cacheprovider", "--hypothesis-seed=0"],
        "pytest_add_cli_args_test_selection": list(MODULES[module]),
        "use_git_change_detection": False,
    }
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (place / "pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n{lines}", encoding="utf-8")


def _mutmut(place: Path, *arguments: str) -> str:
    """What a command of mutmut prints. Exits with what it printed where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"mutmut {arguments[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def _statuses(place: Path) -> dict[str, str]:
    """What mutmut says of each mutant, by name."""
    lines = _mutmut(place, "results", "--all", "true").splitlines()
    return dict(line.strip().rsplit(": ", 1) for line in lines if line)


def _mutant(place: Path, name: str) -> Mutant:
    shown = _mutmut(place, "show", name).splitlines()
    lines = [line for line in shown if not line.startswith(("---", "+++"))]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Mutant(name, before, after)


def _row(verdict: Verdict) -> str:
    return (
        f"{verdict.module}: {verdict.mutants} mutants, {verdict.killed} killed, {len(verdict.survivors)} survived, "
        f"{verdict.equivalent} equivalent ({100 * verdict.share:.1f} %)"
    )


if __name__ == "__main__":
    sys.exit(main())
