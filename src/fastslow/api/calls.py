"""The package in Python: `train`, `describe`, `evaluate`, `experiment` and `export`,
with objects in the place of names.

A config, where one is given, is the path of a YAML file, its keys and values as a dict, or a
`fastslow.Config`. Keywords lie over it: the config's own keys (`steps=20`, `slow={"learning_rate": 1e-5}`,
`**{"loop.group_size": 4}`), and objects:

    model          a loaded transformers or PEFT model, or a name. It is trained in place, as TRL does.
    tokenizer      its tokenizer; without one, that of the model's name_or_path
    dataset        a datasets.Dataset or DatasetDict, a list of dicts, a pandas DataFrame, a path or a hub id; or one
                   for each split by its name. Without `splits` in the task's options a tenth is held out for
                   validation.
    reward_funcs   functions as in TRL, one or several, with reward_weights and reward_range
    environment    a class as for TRL's environment_factory, or with `init` and `step`
    task           a fastslow.Task, or the section `task`
    proposer, optimiser    objects with `propose`, or `evolve`

An object that can be imported is recorded by its import path, any other by a placeholder. A run with placeholders is
resumed from Python with the same objects, and its config.yaml says how.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastslow.api.objects import AnyConfig, Given, Objects, as_overrides, collect, collect_for, nested, parsed
from fastslow.cli.notebook import in_notebook
from fastslow.cli.progress import Display, WarningsObserver, make_observer
from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.given import is_model, lend, lend_copies
from fastslow.runs.files import is_run
from fastslow.runs.owner import check_trusted
from fastslow.slow.build import ADAPTER
from fastslow.slow.local.lora import BASE
from fastslow.text import shown
from fastslow.training.observer import Observer, Observers, SilentObserver

if TYPE_CHECKING:
    from fastslow.experiments.records import Line
    from fastslow.measuring.evaluate import EvaluationReport
    from fastslow.training.session import TrainResult

Callback = Observer | Callable[[str, dict[str, Any]], object]
"""What hears the events of a run: an object with `on_event(kind, payload)`, or a function of the two."""


def train(
    config: AnyConfig = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    dataset: Any = None,
    reward_funcs: Any = None,
    reward_weights: Sequence[float] | None = None,
    reward_range: Sequence[float] | None = None,
    environment: Any = None,
    task: Any = None,
    proposer: Any = None,
    optimiser: Any = None,
    resume: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    observer: Observer | None = None,
    progress: bool | None = None,
    trust_code: bool = False,
    **settings: Any,
) -> "TrainResult":
    """Run, or resume, one training run; the module says what the keywords take.

    `progress`: show what the command shows; None: in a terminal and in a notebook. `callbacks` hear the run's events,
    and `observer` as well, in the place of the progress. `trust_code`: the code may run that another user's run names.
    Raises: ConfigError and TaskError before any model loads; InfrastructureError when too many rollouts fail, after the
    last good step has been saved.
    """
    from fastslow.loop import train as run

    objects = Objects(
        model, tokenizer, dataset, reward_funcs, reward_weights, reward_range, environment, task, proposer, optimiser
    )
    settings, listeners = _without_tracker(settings, [_listener(each, "callbacks") for each in callbacks])
    made, given = _config(config, objects, settings, resume, trust_code)
    shows = observer if observer is not None else _display(progress)
    with lend(given.lent), as_found(given), shows if isinstance(shows, Display) else nullcontext():
        return run(made, resume=None if resume is None else Path(resume), observer=Observers([shows, *listeners]))


def describe(
    config: AnyConfig = None, *, resume: str | Path | None = None, trust_code: bool = False, **keywords: Any
) -> str:
    """In words what `train` would do with these keywords, after every check without weights. Raises as it does."""
    from fastslow.plan import describe as plan

    objects, settings = Objects.of(keywords)
    settings, _ = _without_tracker(settings, [])
    made, given = _config(config, objects, settings, resume, trust_code)
    with lend(given.lent):
        return plan(made, resume=None if resume is None else Path(resume))


def evaluate(
    target: Any, *, config: AnyConfig = None, overrides: Sequence[str] = (), trust_code: bool = False, **keywords: Any
) -> "EvaluationReport":
    """mean@k, best@k and, if asked, the KL to the base: of a run, of a model by its name, or of a loaded model.

    `weights`, `prompt`, `split`, `problems`, `k` and `kl` are as in `measuring.evaluate.evaluate`, other keywords are
    as in `train`. Of a run, objects are those that it was started with; `model` is its base, as it was before the run.
    Of a model, they and `config` name the task.
    Raises: ConfigError, before any model loads, for anything that does not exist.
    """
    from fastslow.measuring.evaluate import evaluate as measure

    chosen, keywords = _parameters_of(measure, keywords)
    objects, settings = Objects.of(keywords)
    if isinstance(target, str | Path) and is_run(Path(target)):
        if config is not None:
            raise ConfigError(f"config: {str(target)!r} is a run and has its own config: leave it out")
        given = collect_for(Path(target), objects, {})
        changes = [*as_overrides(nested(settings)), *overrides]
        with lend(given.lent), _adapters_in_a_copy(given):
            return measure(target, overrides=changes, trust_code=trust_code, **chosen)
    if not isinstance(target, str | Path) and not is_model(target):
        raise ConfigError(
            f"target: {shown(target)} is neither a run directory, nor the name of a model, nor a loaded one"
        )
    if isinstance(target, str | Path) and objects.none and not isinstance(config, Mapping | Config):
        return measure(target, config=config, overrides=[*as_overrides(nested(settings)), *overrides], **chosen)
    adapter = isinstance(target, str | Path) and (Path(target) / ADAPTER).is_file()
    given = collect(config, objects if adapter else objects.with_model(target), settings, overrides)
    made = parsed(given, recorded=True)
    with lend(given.lent), as_found(given):
        return measure(str(target) if adapter else made.model.name, config=made, trust_code=trust_code, **chosen)


def experiment(name: str, config: AnyConfig = None, *, overrides: Sequence[str] = (), **keywords: Any) -> list["Line"]:
    """As `fastslow experiment`: `experiments.commands.experiment` says what the options mean;
    other keywords are as in `train`.

    Objects that cannot be imported stay in this process, so that its runs follow one another there, each with a copy of
    a model that was given. Raises: ConfigError before any model loads; FastslowError when parts failed.
    """
    from fastslow.experiments.commands import experiment as run

    options, keywords = _parameters_of(run, keywords)
    objects, settings = Objects.of(keywords)
    given = collect(config, objects, settings, overrides)
    with lend(given.lent):
        return run(name, parsed(given), **options)


def export(run: str | Path, output: str | Path, **keywords: Any) -> Path:
    """Write the deployable directory of a run; the path of it. The options are those of `fastslow.export.export`.

    Objects, as in `train`, are needed of a distilled run alone, whose task is asked for its seed prompt. Raises:
    ConfigError as it does.
    """
    from fastslow.export import export as write

    objects, options = Objects.of(keywords)
    given = Given({}) if objects.none else collect_for(Path(run), objects, {})
    with lend(given.lent):
        return write(run, output, **options)


@contextmanager
def as_found(given: Given) -> Iterator[None]:
    """Afterwards a model that was given has its own attention, mode and adapters again;
    its weights are what training made of them.
    """
    models = [thing for thing in given.lent.values() if is_model(thing)]
    kept = [(model, model.config._attn_implementation, model.training) for model in models]
    try:
        yield
    finally:
        for model, attention, training in kept:
            inner = model.get_base_model() if hasattr(model, "get_base_model") else model
            inner.set_attn_implementation(attention)
            model.train(training)
            if BASE in getattr(model, "peft_config", {}) and hasattr(model, "delete_adapter"):
                model.delete_adapter(BASE)


# -- inside ------------------------------------------------------------------------------------------------------------


def _config(
    config: AnyConfig, objects: Objects, settings: dict[str, Any], resume: str | Path | None, trust_code: bool
) -> tuple[Config, Given]:
    plain = isinstance(config, Config) and objects.none and not settings
    if resume is None and not plain:
        given = collect(config, objects, settings)
        return parsed(given), given
    given = Given({}) if plain else collect_for(Path(str(resume)), objects, settings, config)
    made = config if isinstance(config, Config) and plain else parsed(given, recorded=True)
    if resume is not None:
        check_trusted(Path(resume), made, trust_code=trust_code, trains=True)
    return made, given


@contextmanager
def _adapters_in_a_copy(given: Given) -> Iterator[None]:
    """Inside, a model that was given is a copy where a checkpoint's adapter goes into it: the object stays as it is."""
    if given.tree["model"].get("lora") is None:
        with as_found(given):
            yield
        return
    with lend_copies():
        yield


def _parameters_of(function: Callable[..., Any], keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keywords that a function has parameters for, and the rest."""
    known = inspect.signature(function).parameters
    mine = {name: value for name, value in keywords.items() if name in known}
    return mine, {name: value for name, value in keywords.items() if name not in known}


def _display(progress: bool | None) -> Observer:
    if progress or (progress is None and (sys.stdout.isatty() or in_notebook())):
        return make_observer()
    return SilentObserver() if progress is False else WarningsObserver()


def _without_tracker(settings: dict[str, Any], listeners: list[Observer]) -> tuple[dict[str, Any], list[Observer]]:
    """A tracker that is there already hears the run as callbacks do; the config's key holds names alone."""
    tracker = settings.get("tracker")
    if tracker is None or isinstance(tracker, str | type):
        return settings, listeners
    rest = {key: value for key, value in settings.items() if key != "tracker"}
    return rest, [*listeners, _listener(tracker, "tracker")]


def _listener(callback: Any, keyword: str) -> Observer:
    if callable(getattr(callback, "on_event", None)) and not isinstance(callback, type):
        observer: Observer = callback
        return observer
    if callable(callback) and not isinstance(callback, type):
        return _Function(callback)
    raise ConfigError(
        f"{keyword}: {shown(callback)} hears nothing: give a function of (kind, payload), or an object with on_event"
    )


class _Function:
    """A function that hears what an observer hears."""

    def __init__(self, function: Callable[[str, dict[str, Any]], object]) -> None:
        self.function = function

    def on_event(self, kind: str, payload: dict[str, object]) -> None:
        """One event of the run."""
        self.function(kind, payload)
