"""`fastslow report`: one HTML page about runs and experiments, written to a file or served while they go on."""

import argparse
from pathlib import Path

from fastslow.errors import ConfigError


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of `fastslow report`."""
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="RUN_OR_EXPERIMENT", help="run directories, results files (.jsonl)"
    )
    parser.add_argument("--output", type=Path, help="the file to write (default: report.html)")
    parser.add_argument("--live", action="store_true", help="serve the page on this machine; it follows the runs")
    parser.add_argument("--port", type=int, help="of --live (default: 8420; 0 takes any free one)")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    if options.live:
        from fastslow.report.serve import DEFAULT_PORT, serve

        if options.output is not None:
            raise ConfigError("--output: a live report is served, not written: leave --output or --live out")
        return serve(options.paths, DEFAULT_PORT if options.port is None else options.port)
    if options.port is not None:
        raise ConfigError("--port: only a report that is served has a port: add --live")
    write(options.paths, options.output or Path("report.html"))
    return 0


def write(paths: list[Path], output: Path) -> None:
    """Write the page. Raises ConfigError where a path is neither a run nor an experiment, or it cannot be written."""
    from fastslow.report.collect import collect
    from fastslow.report.page import render
    from fastslow.report.thin import LARGEST, fit
    from fastslow.runs.directory import write_atomically
    from fastslow.text import printable

    if output.is_dir():
        raise ConfigError(f"--output: {str(output)!r} is a directory: name a file, e.g. {output / 'report.html'}")
    text = render(fit(collect(paths))).encode("utf-8", "replace").decode()
    size = len(text.encode())
    if size >= LARGEST:
        raise ConfigError(
            f"{len(paths)} paths make a page of {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}: name fewer"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, text)
    print(f"wrote {printable(str(output))} ({size / 1e6:.1f} MB): open it in a browser")
