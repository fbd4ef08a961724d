"""The lab's experiments (`worlds.py`): what they are made of, and running what is missing, then tables and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastslow.config import apply_override
from fastslow.errors import ConfigError
from fastslow.experiments.parts import Experiment
from fastslow.experiments.plots import check_plots
from fastslow.experiments.records import Line
from fastslow.experiments.watch import run_watched
from fastslow.lab.demo import base_config
from fastslow.lab.report import write_report
from fastslow.lab.worlds import FULL, Size, chosen_methods, experiments, results_file, tuning

TUNE = "tune"


def reproduce(
    names: Sequence[str],
    *,
    runs: Path,
    results: Path,
    seeds: int,
    workers: int,
    report_only: bool = False,
    size: Size = FULL,
) -> None:
    """Run what is missing of the named experiments (all of them where none is named), then write tables and plots.
    `TUNE` comes before all others in any case.

    Raises: ConfigError, before anything runs, for a name that is not known or a library that plots need.
    """
    makers = experiments(seeds, size)
    unknown = [name for name in names if name not in (TUNE, *makers)]
    if unknown:
        raise ConfigError(f"lab reproduce: {unknown[0]!r} is unknown: take some of {', '.join(makers)}")
    check_plots()
    results.mkdir(parents=True, exist_ok=True)
    if not report_only:
        base = sized_config(size)
        tuned = _run(Experiment(TUNE, base, tuple(tuning(size))), runs, results, workers)
        methods = chosen_methods(tuned, size)
        for name in [name for name in names or makers if name != TUNE]:
            _run(Experiment(name, base, tuple(makers[name](methods))), runs, results, workers)
            write_report(results, size)
    write_report(results, size)


def sized_config(size: Size) -> dict[str, Any]:
    """The lab's config as a tree, at a size."""
    tree = base_config()
    for key, value in size.settings.items():
        apply_override(tree, f"{key}={value}")
    return tree


def _run(experiment: Experiment, runs: Path, results: Path, workers: int) -> list[Line]:
    file = results_file(results, experiment.name)
    return run_watched(experiment, runs / experiment.name, workers=workers, results=file)
