"""`fastslow export` and `fastslow serve`: their options."""

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastslow.runs.owner import FLAG


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option that lets the code run that another user's run names."""
    parser.add_argument(
        FLAG,
        action="store_true",
        help="run the code that the config of another user's run names (tasks, scorers, engines)",
    )


def add_export(parser: argparse.ArgumentParser) -> None:
    """The options of `fastslow export`."""
    parser.add_argument("run_directory", type=Path, metavar="RUN")
    parser.add_argument("output", type=Path, help="a directory that does not exist yet, or is empty")
    parser.add_argument("--weights", default="latest", help="latest or step_N (default: latest)")
    parser.add_argument("--merge", action="store_true", help="merge the adapter into its base: whole weights")
    parser.add_argument(
        "--gguf", action="store_true", help="also write model.gguf, with llama.cpp's converter (LLAMA_CPP=DIRECTORY)"
    )
    parser.add_argument("--base-model", metavar="ID", help="the hub's name of the base, where the run has a path")
    parser.add_argument("--license", metavar="ID", help="a licence for the model card, such as apache-2.0")
    parser.add_argument("--push", metavar="OWNER/NAME", help="put it into this repository of the hub, made private")
    parser.add_argument("--public", action="store_true", help="with --push: a repository that is made is public")
    add_trust(parser)
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from fastslow.export import export

    export(
        options.run_directory,
        options.output,
        weights=options.weights,
        trust_code=options.trust_code,
        merge=options.merge,
        gguf=options.gguf,
        base_model=options.base_model,
        license=options.license,
        push=options.push,
        public=options.public,
    )
    print(f"wrote {options.output}; {options.output / 'README.md'} says how to serve it")
    if options.push is not None:
        print(f"pushed it to {options.push}")
    return 0


def add_serve(parser: argparse.ArgumentParser) -> None:
    """The options of `fastslow serve`."""
    from fastslow.deploy.settings import AT_ONCE, DEFAULT_PORT, MAX_REQUEST_BYTES

    parser.add_argument("target", type=Path, metavar="RUN|EXPORT", help="a run, or what fastslow export wrote")
    parser.add_argument("--weights", default="latest", help="of a run: latest or step_N (default: latest)")
    parser.add_argument("--name", help="the model's name for clients (default: the directory's)")
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help=f"0 is any free one (default: {DEFAULT_PORT}); this machine alone",
    )
    parser.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="an environment variable with the key that clients must have (default: any)",
    )
    parser.add_argument(
        "--max-tokens", type=int, help="of an answer, where a request does not say (default: training's)"
    )
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"requests that may wait (default: {AT_ONCE})")
    parser.add_argument(
        "--max-request-bytes", type=int, default=MAX_REQUEST_BYTES, help=f"(default: {MAX_REQUEST_BYTES})"
    )
    parser.add_argument("--device", help="auto, cpu or cuda (default: the run's)")
    add_trust(parser)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from fastslow.deploy.serve import key_of, serve

    server = serve(
        options.target,
        weights=options.weights,
        name=options.name,
        port=options.port,
        api_key=key_of(options.api_key_env),
        max_tokens=options.max_tokens,
        at_once=options.at_once,
        max_request_bytes=options.max_request_bytes,
        device=options.device,
        trust_code=options.trust_code,
    )
    with server, _ended_by_signals():
        print(f"{server.told()}\nCtrl-C ends it.", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print("\nended")
    return 0


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Here Ctrl-C and SIGTERM raise KeyboardInterrupt, even where a shell started the command with SIGINT ignored."""
    heard = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
