"""`fastslow lab reproduce`: runs what is missing of the lab's experiments (`worlds.py`), then writes tables and plots."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from fastslow.errors import ConfigError
from fastslow.experiments.plots import check_plots
from fastslow.experiments.records import Line
from fastslow.experiments.runner import Experiment, run_experiment
from fastslow.experiments.watch import LiveWatcher, make_watcher
from fastslow.lab.demo import base_config
from fastslow.lab.report import write_report
from fastslow.lab.worlds import chosen_methods, experiments, results_file, tuning


def reproduce(
    names: Sequence[str], *, runs: Path, results: Path, seeds: int, workers: int, report_only: bool = False
) -> None:
    """Run what is missing of the named experiments (all of them where none is named), then write tables and plots.

    Raises: ConfigError, before anything runs, for a name that is not known or a library that plots need.
    """
    makers = experiments(seeds)
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise ConfigError(f"lab reproduce: {unknown[0]!r} is unknown: take some of {', '.join(makers)}")
    check_plots()
    results.mkdir(parents=True, exist_ok=True)
    if not report_only:
        tuned = _run(Experiment("tune", base_config(), tuple(tuning())), runs, results, workers)
        methods = chosen_methods(tuned)
        for name in names or makers:
            _run(Experiment(name, base_config(), tuple(makers[name](methods))), runs, results, workers)
            write_report(results)
    write_report(results)


def _run(experiment: Experiment, runs: Path, results: Path, workers: int) -> list[Line]:
    watcher = make_watcher()
    with watcher if isinstance(watcher, LiveWatcher) else nullcontext():
        return run_experiment(
            experiment,
            runs / experiment.name,
            workers=workers,
            watcher=watcher,
            results=results_file(results, experiment.name),
        )
