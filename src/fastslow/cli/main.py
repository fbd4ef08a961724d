"""The command line. Heavy imports wait until a command needs them."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fastslow import __version__
from fastslow.cli.completion import add_completion
from fastslow.cli.deploy import add_export, add_serve, add_trust
from fastslow.cli.docs import add_docs
from fastslow.errors import ConfigError, FastslowError, told
from fastslow.experiments.commands import add_command as add_experiment
from fastslow.given import check_lent
from fastslow.lab.commands import add_commands
from fastslow.quiet import quiet_libraries
from fastslow.redact import redact_text
from fastslow.report.commands import add_command as add_report
from fastslow.reproduce.commands import add_command as add_reproduce
from fastslow.runs.owner import check_trusted
from fastslow.starter.commands import add_command as add_init
from fastslow.text import printable

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Errors that fastslow raises on purpose are one message on stderr, and exit code 2."""
    options = build_parser().parse_args(arguments)
    quiet_libraries()
    try:
        return int(options.run(options))
    except FastslowError as error:
        _complain(told(error))
        return 2
    except SystemExit as error:
        # Only code that a config names ends the program so, and with status 0 nobody would see that nothing was done.
        words = told(error, f"code that the config names ended the program: sys.exit({error})")
        _complain(words)
        return 1
    except KeyboardInterrupt:
        # What is still being tidied up ends without a word when it is pressed once more.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("fastslow: stopped at once: what is not in a checkpoint yet is lost", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        raise  # a mistake of ours: its traceback says where
    except BaseException as error:  # what somebody else's code raises need be no Exception
        _complain(told(error, f"code that the config names ended the program: {type(error).__name__}: {error}"))
        return 1


def _complain(words: str) -> None:
    """Say what is wrong, without what steers a terminal, and without a key that was pasted where it does not belong."""
    print(f"fastslow: {printable(redact_text(words))}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="fastslow",
        description="Fast-Slow Training of language models.",
        epilog="Pages that messages name, such as docs/engine.md: fastslow docs engine",
    )
    parser.add_argument("--version", action="version", version=f"fastslow {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_init(commands.add_parser("init", help="a config, a scorer and a README for a dataset of yours"))
    _add_train(commands.add_parser("train", help="train a model and a population of prompts"))
    _add_evaluate(commands.add_parser("evaluate", help="measure weights under prompts, and their KL to the base"))
    add_experiment(commands.add_parser("experiment", help="the paper's experiments over seeds, for any model and task"))
    _add_prompts(commands.add_parser("prompts", help="show the prompts of a run and how they came about"))
    add_export(commands.add_parser("export", help="write what is deployed: weights, prompts, and how to serve them"))
    add_serve(
        commands.add_parser("serve", help="an OpenAI-compatible endpoint that puts the evolved prompt in by itself")
    )
    _add_tasks(commands.add_parser("tasks", help="list tasks, or show problems of one"))
    add_report(commands.add_parser("report", help="one HTML page about runs and experiments, or a live one"))
    add_commands(commands.add_parser("lab", help="a small world with a model of its own: demo, reproduce, pretrain"))
    add_reproduce(commands.add_parser("reproduce", help="every table of the README and docs/results.md, from nothing"))
    add_docs(commands.add_parser("docs", help="the pages and configs that messages name"))
    add_completion(parser)
    return parser


# -- train -------------------------------------------------------------------------------------------------------------


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", help="a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one option")
    parser.add_argument("--dry-run", action="store_true", help="check everything, explain the recipe, load no weights")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was cut")
    parser.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    add_trust(parser)
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from fastslow.config import load_config
    from fastslow.runs.directory import resumed_config

    if (options.config is None) == (options.resume is None):
        raise ConfigError("train takes either a config file or --resume RUN")
    if options.resume is not None:
        config = resumed_config(options.resume, options.set)
        check_lent(config.model_dump(mode="json"), options.resume)
        check_trusted(options.resume, config, trust_code=options.trust_code, trains=True)
    else:
        config = load_config(options.config, options.set)
    if options.dry_run:
        from fastslow.plan import describe

        print(printable(describe(config, resume=options.resume)))
        return 0
    from fastslow.cli.progress import make_observer

    with make_observer(quiet=options.quiet) as observer:
        observer.on_event("phase", {"name": "loading"})
        # Its imports alone take seconds.
        from fastslow.loop import train

        result = train(config, resume=options.resume, observer=observer)
    if not options.quiet:
        from fastslow.cli import summary

        summary.show(result, observer.repeated)
    if result.interrupted:
        print(f"\nStopped after step {result.steps}; everything is saved. Go on with:\n")
        print(f"    fastslow train --resume {result.run}")
        return INTERRUPTED
    return 0


# -- evaluate ----------------------------------------------------------------------------------------------------------


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a run directory, or a model (then --config says which task)")
    parser.add_argument("--config", help="the YAML file that names the task, where the target is a model")
    parser.add_argument("--weights", default="latest", help="of a run: base, latest, or step_N (default: latest)")
    parser.add_argument(
        "--prompt",
        action="append",
        help="seed, best, population, @FILE or a text; several times for several (default: best; a model, and after "
        "distillation: seed)",
    )
    parser.add_argument("--split", default="validation", choices=["train", "validation", "test"])
    parser.add_argument("--problems", type=int, help="how many problems (default: all of the split)")
    parser.add_argument("--k", type=int, help="completions a problem (default: evaluation.k of the config)")
    parser.add_argument("--kl", action="store_true", help="also measure the token-level KL to the base model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file as well")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write every completion with its score to a file of JSON lines"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one option")
    add_trust(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    import json

    from fastslow.cli.progress import make_observer

    for name, path in (("--json", options.json), ("--save", options.save)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise ConfigError(f"{name}: {str(path)!r} cannot be written: name a file in a directory that exists")
    with make_observer() as observer:
        observer.on_event("phase", {"name": "loading"})
        from fastslow.measuring.evaluate import evaluate

        report = evaluate(
            options.target,
            config=options.config,
            overrides=options.set,
            weights=options.weights,
            prompt=options.prompt,
            split=options.split,
            problems=options.problems,
            k=options.k,
            kl=options.kl,
            trust_code=options.trust_code,
            tell=observer.on_event,
        )
    from fastslow.cli import show
    from fastslow.runs.directory import write_atomically

    show.evaluation(report)
    if options.json is not None:
        write_atomically(options.json, json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    if options.save is not None:
        lines = [json.dumps(line, ensure_ascii=False) for line in report.completions()]
        write_atomically(options.save, "".join(f"{line}\n" for line in lines))
        print(f"wrote {len(lines)} completions to {printable(str(options.save))}")
    return 0


# -- prompts -----------------------------------------------------------------------------------------------------------


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", type=Path, metavar="RUN")
    parser.add_argument("--best", action="store_true", help="print the best prompt alone, ready to paste")
    parser.add_argument("--all", action="store_true", help="list every candidate ever proposed")
    parser.add_argument("--tree", action="store_true", help="the family tree of all candidates, with what each changed")
    parser.add_argument("--id", metavar="HASH", help="one candidate: its text, its parent, what led to it")
    parser.add_argument("--rollouts", action="store_true", help="the kept rollouts, turn by turn")
    parser.add_argument(
        "--end", metavar="REASON", help="with --rollouts: those that ended so, e.g. max_turns or timed_out"
    )
    parser.set_defaults(run=_prompts)


def _prompts(options: argparse.Namespace) -> int:
    from fastslow.cli import show

    run = options.run_directory
    if options.end is not None and not options.rollouts:
        raise ConfigError("--end chooses among rollouts: give --rollouts as well")
    if options.rollouts:
        from fastslow.cli.show_rollouts import rollouts

        rollouts(run, options.end)
    elif options.best:
        show.best_prompt(run)
    elif options.id:
        show.candidate(run, options.id)
    elif options.all:
        show.candidates(run)
    elif options.tree:
        show.tree(run)
    else:
        show.population(run)
    return 0


# -- tasks -------------------------------------------------------------------------------------------------------------


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a task, as in task.name, or a config file; without: all of them")
    parser.add_argument("--find", nargs="+", metavar="WORD", help="those whose name or description has every word")
    parser.add_argument("--options", action="store_true", help="list the options of each task as well")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="an option of the task")
    parser.add_argument("--show", type=int, default=1, metavar="N", help="how many problems to show (default: 1)")
    parser.add_argument("--split", default="train", choices=["train", "validation", "test"], help="(default: train)")
    parser.add_argument("--answer", metavar="TEXT", help="show what the scorer says to this (default: a wrong answer)")
    parser.set_defaults(run=_tasks)


def _tasks(options: argparse.Namespace) -> int:
    from fastslow.cli import show_tasks

    if options.name is None:
        show_tasks.tasks(options.find or (), with_options=options.options)
    elif options.find:
        raise ConfigError("--find chooses among all tasks: leave the name out")
    else:
        show_tasks.task(options.name, options.set, options.show, options.answer, options.split)
    return 0
