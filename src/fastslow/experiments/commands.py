"""`fastslow experiment NAME CONFIG`, and the same in Python: `fastslow.experiment`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from fastslow.config import Config
from fastslow.errors import ConfigError, positive
from fastslow.runs.files import read_lines
from fastslow.text import wrapped

if TYPE_CHECKING:  # numpy stays out of --help
    from fastslow.experiments.parts import Experiment
    from fastslow.experiments.records import Line, Settings

RESULTS = "results.jsonl"


def experiment(
    name: str,
    config: str | Path | Config,
    *,
    output: str | Path | None = None,
    seeds: int = 3,
    workers: int = 1,
    overrides: Sequence[str] = (),
    methods: Sequence[str] = (),
    method_overrides: Sequence[str] = (),
    second: Sequence[str] = (),
    key: str = "",
    values: Sequence[object] = (),
    report_only: bool = False,
    results: str | Path | None = None,
    model_at: str = "",
    note: str = "",
) -> list["Line"]:
    """Run what is missing of an experiment, and write `results.jsonl`, `README.md` and plots into `output`
    (`runs/NAME` where it is not given). Experiments that share an `output` share their runs; each has a page of its
    own, the second one's is `NAME.md`. Returns every part's line.

    `results` is where all but the runs is written, if elsewhere; `model_at` where the config's model lies, if elsewhere
    than the config says: results of one model are the same wherever it lies. `note` stands behind the page's title.

    `overrides` are `key=value` for all runs, `method_overrides` `method:key=value` for those of one method, `second`
    those of the second task of `plasticity`; `key` and `values` are what `ablate` varies.
    Raises: ConfigError, before any model loads; FastslowError when parts failed, after all the others have ended.
    """
    from fastslow.config import load_config, with_overrides
    from fastslow.experiments import parts
    from fastslow.experiments.plots import check_plots
    from fastslow.experiments.studies import STUDIES, Options

    if name not in STUDIES:
        raise ConfigError(f"experiment: {name!r} is unknown: take one of {', '.join(STUDIES)}")
    study = STUDIES[name]
    base = with_overrides(config, overrides) if isinstance(config, Config) else load_config(config, overrides)
    chosen = _methods(methods or study.methods, study.known)
    options = Options(
        positive("seeds", seeds),
        chosen,
        _by_method(method_overrides, (*chosen, *study.also)),
        _settings(second),
        key,
        tuple(values),
    )
    study.check(base, options)
    check_plots()
    directory = Path(output) if output is not None else Path("runs") / name
    pages = directory if results is None else Path(results)
    made = parts.Experiment(name, base.model_dump(mode="json"), tuple(study.parts(base, options)), str(model_at))
    told = {"about": study.about, "task": base.task.name, "model": base.model.name, "key": key}
    lines = read_lines(pages / RESULTS) if report_only else _run_all(made, directory, pages, workers, told)
    if not lines:
        raise ConfigError(f"output: there are no results in {str(pages)!r} yet: leave --report out")
    _write(f"{name}: {study.about}{note}", lines, study.section(lines, pages, base, options), page_of(name, pages))
    return lines


def _run_all(made: "Experiment", directory: Path, pages: Path, workers: int, told: Mapping[str, str]) -> list["Line"]:
    """Run what is missing, its lines in `pages`; what it was told stands beside them."""
    from fastslow.experiments.about import write_about
    from fastslow.experiments.runner import check_tasks
    from fastslow.experiments.watch import run_watched

    check_tasks(made, directory)
    write_about(pages, made.name, {what: text for what, text in told.items() if text})
    return run_watched(made, directory, workers=positive("workers", workers), results=pages / RESULTS)


def page_of(name: str, directory: Path) -> Path:
    """Where an experiment's page lies: README.md, or NAME.md where another experiment with the same runs has that."""
    page = directory / "README.md"
    taken = page.is_file() and f"Written by `fastslow experiment {name}`" not in page.read_text(encoding="utf-8")
    return directory / f"{name}.md" if taken else page


def _write(title: str, lines: Sequence["Line"], section: Sequence[str], page: Path) -> None:
    from fastslow.experiments.tables import seed_counts
    from fastslow.measuring.intervals import median_note
    from fastslow.runs.directory import write_atomically

    head = f"""# {title}

Written by `fastslow experiment {title.partition(":")[0]}` from `results.jsonl`. Medians over seeds.
{fill(median_note(seed_counts(lines)), 118)}
Accuracy is mean@k on validation problems unless the test split is named. Sampled rollouts include the prompt search's.
Seconds are training seconds, evaluations left out. KL is to the base weights, in nats a token.
"""
    write_atomically(page, "\n".join([head, *wrapped(section)]).rstrip() + "\n")


def _methods(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ConfigError(f"--methods: {name!r} is unknown: take some of {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def _settings(overrides: Sequence[str]) -> dict[str, object]:
    """Dotted keys and their values, read as YAML."""
    from fastslow.config.yaml_text import read_yaml

    found: dict[str, object] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"{override!r}: write it as key.path=value, for example slow.learning_rate=1e-4")
        found[key] = read_yaml(text) if text else None
    return found


def _by_method(overrides: Sequence[str], methods: Sequence[str]) -> Mapping[str, "Settings"]:
    found: dict[str, dict[str, object]] = {}
    known = tuple(dict.fromkeys(methods))
    for override in overrides:
        method, separator, rest = override.partition(":")
        if not separator or method not in known:
            raise ConfigError(
                f"--method-set {override!r}: write it as method:key.path=value with one of {', '.join(known)} in front"
            )
        found.setdefault(method, {}).update(_settings([rest]))
    return found


# -- the command -------------------------------------------------------------------------------------------------------


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of `fastslow experiment`."""
    parser.add_argument(
        "name", help="compare, asymptote, drift, decompose, plasticity, continual, distill, tune, arms or ablate"
    )
    parser.add_argument("config", help="a YAML file, as for fastslow train")
    parser.add_argument("--output", type=Path, help="where runs and results lie (default: runs/NAME)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N-1 (default: 3)")
    parser.add_argument("--workers", type=int, default=1, help="runs side by side (default: 1)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one option of all runs"
    )
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="which methods (default: see docs)")
    parser.add_argument(
        "--method-set",
        action="append",
        default=[],
        metavar="METHOD:KEY=VALUE",
        help="override one option of one method",
    )
    parser.add_argument(
        "--second",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="plasticity: options of the second task's runs; tune: of the task that rates are searched on",
    )
    parser.add_argument("--key", default="", help="ablate: the option that is varied, such as loop.population_size")
    parser.add_argument(
        "--values", nargs="+", default=[], metavar="VALUE", help="ablate: its values; tune: the learning rates"
    )
    parser.add_argument("--report", action="store_true", help="only write tables and plots from the results so far")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from fastslow.config.yaml_text import read_yaml

    output = options.output or Path("runs") / options.name
    experiment(
        options.name,
        options.config,
        output=output,
        seeds=options.seeds,
        workers=options.workers,
        overrides=options.set,
        methods=options.methods,
        method_overrides=options.method_set,
        second=options.second,
        key=options.key,
        values=[read_yaml(value) for value in options.values],
        report_only=options.report,
    )
    print(f"wrote {page_of(options.name, output)}")
    return 0
