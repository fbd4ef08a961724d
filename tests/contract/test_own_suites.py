"""Optimisers, proposers, scorers, trackers and tasks of the package keep the contracts of `fastslow.testing`."""

import functools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastslow.cli.progress import LiveObserver, PlainObserver, WarningsObserver
from fastslow.fast.frozen import FrozenOptimiser
from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.proposers.lesson import LessonProposer
from fastslow.fast.proposers.phrasebook import Phrasebook
from fastslow.fast.proposers.registry import MODULES, build_proposer
from fastslow.fast.proposers.settings import proposer_config
from fastslow.lab.tasks import LabTask
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.tasks.formats import FORMATS
from fastslow.tasks.scorers import SCORERS, find_scorer
from fastslow.tasks.stream import StreamTask
from fastslow.testing.observers import check_observer
from fastslow.testing.optimisers import check_optimiser
from fastslow.testing.proposers import RULES, check_proposer
from fastslow.testing.scorers import check_scorer
from fastslow.testing.tasks import check_task
from fastslow.training.observer import Observers, SilentObserver
from fastslow.training.settings import TRACKERS
from fastslow.training.trackers import TensorBoardObserver, TrackioObserver, WandbObserver

from chat_server import Answer, ChatServer
from runs import small_config
from toy import KindsTask, LettersTask


@pytest.mark.parametrize("proposals", [1, 3])
def test_gepa_is_a_prompt_optimiser(proposals: int) -> None:
    check_optimiser(
        functools.partial(GepaOptimiser, reflection_minibatch=2, proposals_per_iteration=proposals),
    )


def test_the_frozen_optimiser_is_one() -> None:
    check_optimiser(FrozenOptimiser)


def answer(number: int, request: dict[str, Any]) -> Answer:
    """A model at temperature 0: what it writes is a function of what it is asked."""
    text = json.dumps(request["messages"]) + str(request["seed"])
    return Answer(text=f"<new_prompt>\nBe brief, {sum(map(ord, text))}.\n</new_prompt>")


PROPOSERS_CHECKED = {"lesson", "openai", "litellm", "policy"}


def test_every_proposer_is_checked_here() -> None:
    assert set(MODULES) == PROPOSERS_CHECKED


@pytest.mark.parametrize("rewrite", [False, True])
def test_lesson_is_a_proposer(rewrite: bool) -> None:
    check_proposer(LessonProposer(rewrite=rewrite))


def test_lesson_with_a_phrase_book_is_one() -> None:
    check_proposer(LessonProposer(phrasebook=Phrasebook(("Use digits for the number.", "Put it into the box."), {})))
    assert RULES


@pytest.mark.parametrize("kind", ["openai", "litellm"])
def test_a_remote_model_is_a_proposer(kind: str) -> None:
    if kind == "litellm":
        pytest.importorskip("litellm")
    with ChatServer(answer) as server:
        model = {"openai": "x", "litellm": "openai/x"}[kind]
        settings = proposer_config(kind=kind, model=model, base_url=server.url, retries=0, backoff_s=0.0)
        check_proposer(build_proposer(settings, None))  # type: ignore[arg-type]  # only the policy needs an engine
        assert server.requests


def test_the_policy_is_a_proposer(tiny_model_dir: Path) -> None:
    engine = LocalEngine(ModelConfig(name=str(tiny_model_dir)), SlowConfig(), seed=0, threads=1)
    # An untrained policy babbles: every reply is refused, and the refusals keep the contract.
    check_proposer(build_proposer(proposer_config(kind="policy", max_tokens=16), engine), writes=False)


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_keeps_its_contract(name: str) -> None:
    if name == "math":
        pytest.importorskip("math_verify")
    records = [{"answer": answer} for answer in (("B", "C") if name == "choice" else ("4", "15"))]
    shape = "\\boxed{{{}}}" if name == "math" else "{}"
    check_scorer(find_scorer(name), records, right=lambda record: shape.format(record["answer"]))
    scorer: Any = find_scorer(name)
    for form in FORMATS if scorer.takes_format else ():
        shaped = {
            "plain": "{}", "boxed": "\\boxed{{{}}}", "tags": "<answer>{}</answer>", "json": '{{"answer": "{}"}}',
            "brackets": "[[{}]]",
        }  # fmt: skip
        check_scorer(scorer, records, right=lambda r, s=shaped[form]: s.format(r["answer"]), answer_format=form)


@pytest.mark.parametrize("make", [WarningsObserver, PlainObserver, LiveObserver, SilentObserver])
def test_every_display_is_an_observer(make: Any) -> None:
    check_observer(make)
    check_observer(lambda: Observers([make(), make()]))


TRACKERS_CHECKED = {"tensorboard", "wandb", "trackio"}


def test_every_tracker_is_checked_here() -> None:
    assert set(TRACKERS) == TRACKERS_CHECKED


def test_tensorboard_is_an_observer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = small_config(Path("no-model"), tmp_path / "run", tracker="tensorboard")
    check_observer(lambda: TensorBoardObserver(config))


@pytest.mark.parametrize(("name", "tracker"), [("wandb", WandbObserver), ("trackio", TrackioObserver)])
def test_a_tracker_behind_a_client_is_an_observer(
    name: str, tracker: type[WandbObserver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    client = SimpleNamespace(
        init=lambda **settings: heard.append("init"),
        log=lambda numbers, step: heard.append("log"),
        finish=lambda: heard.append("finish"),
        Table=lambda columns, data: [dict(zip(columns, row, strict=True)) for row in data],
    )
    monkeypatch.setitem(sys.modules, name, client)
    config = small_config(Path("no-model"), tmp_path / "run", tracker=name)
    check_observer(lambda: tracker(config))
    # A run that ends before it started has nothing to finish.
    assert heard.count("log") >= heard.count("init") == heard.count("finish") > 0


def test_tasks_of_the_lab_streams_and_kinds_keep_their_contract() -> None:
    def lab(world: str = "amber") -> LabTask:
        return LabTask(world, train=16, validation=4, test=4)

    check_task(lab(), again=lab())
    options = {"train": 16, "validation": 4, "test": 4}
    tasks = [{"name": "lab", "options": {"world": world, **options}} for world in ("amber", "birch")]
    check_task(StreamTask(steps=3, tasks=tasks), again=StreamTask(steps=3, tasks=tasks))


@pytest.mark.parametrize("task", [LettersTask, KindsTask])
def test_the_tasks_of_the_suites_keep_their_contract(task: type[LettersTask]) -> None:
    check_task(task(), again=task(), right=lambda problem: problem.data["letters"])
