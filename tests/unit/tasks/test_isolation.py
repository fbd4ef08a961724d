"""Time limits of scorers; scorers and environments as processes: what ends a process costs one rollout."""

import functools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fastslow.errors import ConfigError, ElsewhereError, TaskError
from fastslow.tasks import failures
from fastslow.tasks.base import ScoringFailure, Task
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.types import Problem, Prompt, Score

PROBLEM = Problem("train-0", ({"role": "user", "content": "train 0"},))


def made(name: str, **keys: Any) -> Task:
    return build_task(TaskConfig(name=f"hostile:{name}", **keys))


@functools.cache
def isolated(name: str) -> Task:
    """A task in processes of its own, made once for several tests."""
    return made(name, isolate="process")


def verdicts(task: Task, *completions: str) -> list[Score | ScoringFailure]:
    return task.verdicts([PROBLEM] * len(completions), completions)


def rewards(found: list[Score | ScoringFailure]) -> list[float | str]:
    return [score.reward if isinstance(score, Score) else score.reason for score in found]


# -- in the run's own process ------------------------------------------------------------------------------------------

LATE = "it did not answer within task.timeout_s = 0.3 s"


@pytest.mark.parametrize("name", ["OneByOne", "Batches"])
@pytest.mark.parametrize("how", ["hang", "loop", "lock"])
def test_a_scorer_that_hangs_costs_its_row(name: str, how: str) -> None:
    begin = time.monotonic()
    assert rewards(verdicts(made(name, timeout_s=0.3), "a", how, "b")) == [0.5, LATE, 0.5]
    assert time.monotonic() - begin < 10.0


@pytest.mark.parametrize("isolate", [None, "process"])
@pytest.mark.parametrize(("own", "limit_s"), [({}, 0.5), ({"timeout_s": 1.0}, 1.0)])
def test_a_streams_limit_is_that_of_its_tasks_unless_they_have_one(
    own: dict[str, Any], limit_s: float, isolate: str | None
) -> None:
    part = {"name": "hostile:OneByOne", "seed_prompt": "Be brief.", "isolate": isolate, **own}
    stream = build_task(TaskConfig(name="stream", options={"tasks": [part], "steps": 1}, timeout_s=0.5))
    problem = stream.problems("train")[0]
    late = f"it did not answer within task.timeout_s = {limit_s:g} s"
    assert rewards(stream.verdicts([problem] * 2, ["hang", "a"])) == [late, 0.5]


@pytest.mark.parametrize(("own", "limit_s"), [({}, 0.3), ({"timeout_s": 0.4}, 0.4)])
def test_so_is_that_of_a_task_of_agents(own: dict[str, Any], limit_s: float) -> None:
    options = {"agent": "callers:once", "problems": {"name": "hostile:OneByOne", **own}}
    task: Any = build_task(TaskConfig(name="agent", options=options, timeout_s=0.3))
    found = task.verdict(task.problems("train")[0], "hang")
    assert found == ScoringFailure(f"it did not answer within task.timeout_s = {limit_s:g} s")


def test_one_that_catches_its_interruption_is_interrupted_too() -> None:
    assert rewards(verdicts(made("OneByOne", timeout_s=0.3), "stubborn", "a")) == ["SystemExit: 0", 0.5]


def test_outside_the_main_thread_a_hang_is_left_behind() -> None:
    found: list[Any] = []
    task = made("OneByOne", timeout_s=0.3)
    thread = threading.Thread(target=lambda: found.extend(verdicts(task, "hang", "a", "raise")))
    thread.start()
    thread.join(30.0)
    assert rewards(found) == [LATE, 0.5, "RuntimeError: no sandbox"]


def test_the_first_late_scorer_says_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    failures._told_places.clear()
    verdicts(made("OneByOne", timeout_s=0.3), "hang")
    (record,) = caplog.records
    assert "hostile.py, line " in record.message
    assert LATE in record.message


def test_a_scorer_of_batches_that_is_down_is_not_asked_for_ever() -> None:
    found = verdicts(made("Batches"), *["raise"] * 100)
    assert rewards(found) == ["RuntimeError: no sandbox"] * 100
    assert rewards(verdicts(made("Batches"), "a", "raise", "b", "sys.exit")) == [
        0.5, "RuntimeError: no sandbox", 0.5, "SystemExit: 0",
    ]  # fmt: skip


@pytest.mark.parametrize("make", [made, isolated])
@pytest.mark.parametrize("name", ["OneByOne", "Batches"])
@pytest.mark.parametrize("wrong", ["text", "nan", "more"])
def test_what_is_no_score_is_named(name: str, wrong: str, make: Callable[[str], Task]) -> None:
    with pytest.raises(TaskError, match="for problem 'train-0'"):
        verdicts(make(name), wrong)


@pytest.mark.parametrize("make", [made, isolated])
def test_a_batch_with_scores_missing_is_named(make: Callable[[str], Task]) -> None:
    with pytest.raises(TaskError, match=r"returned \[\] for 2 completions"):
        verdicts(make("Batches"), "short", "a")


# -- in a process of its own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["OneByOne", "Batches"])
def test_what_ends_a_process_costs_its_row(name: str) -> None:
    task = made(name, isolate="process", memory_gib=2.0)
    found = verdicts(task, "a", "exit", "crash", "b", "memory", "sys.exit", "c", "raise")
    assert rewards(found) == [
        0.5,
        "its process ended with status 0",
        "its process was killed by SIGSEGV",
        0.5,
        "MemoryError: ",
        "SystemExit: 0",
        0.5,
        "RuntimeError: no sandbox",
    ]
    processes = {score.feedback for score in found if isinstance(score, Score)}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes


@pytest.mark.parametrize("how", ["hang", "stubborn"])
def test_a_process_that_hangs_is_ended(how: str) -> None:
    task = made("OneByOne", isolate="process", timeout_s=4.0)
    assert rewards(verdicts(task, "a", how, "b")) == [0.5, "it did not answer within task.timeout_s = 4 s", 0.5]


def test_a_failure_there_says_file_and_line_here(caplog: pytest.LogCaptureFixture) -> None:
    failures._told_places.clear()
    verdicts(isolated("OneByOne"), "raise")
    assert "hostile.py, line " in caplog.text


def played(task: Task, *texts: str) -> list[Any]:
    """What an episode says to some texts, its score last; an error stands for what could not be had."""
    episode: Any = task.episode(PROBLEM, Prompt.of("Be brief."))
    found: list[Any] = []
    try:
        assert [m["content"] for m in episode.start()] == ["Be brief.", "train 0"]
        assert episode.tools[0]["function"]["name"] == "f"
        for text in texts:
            found.append(episode.step(text))
        assert (episode.tool_calls, episode.tool_errors) == (len(texts), tuple(f"no tool {text}" for text in texts))
        found.append(episode.score())
    except ElsewhereError as error:
        found.append(str(error))
    finally:
        episode.close()
    return found


def test_an_episode_has_a_process_of_its_own() -> None:
    task = isolated("Environment")
    one, other = played(task, "a", "b"), played(task, "a", "b")
    assert one[-1] == other[-1] == Score(0.25, "ab")
    pids = {int(said[0]["content"]) for said in one[:2] + other[:2]}
    assert len(pids) == 2
    assert os.getpid() not in pids
    for pid in pids:  # and neither is left
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("a", "exit"), "its process ended with status 0"),
        (("crash",), "its process was killed by SIGSEGV"),
        (("raise",), "RuntimeError: no sandbox"),
        (("score:exit",), "its process ended with status 0"),
    ],
)
def test_an_environment_that_ends_its_process_says_so(texts: tuple[str, ...], reason: str) -> None:
    assert played(isolated("Environment"), *texts)[-1] == reason


def test_a_hang_ends_with_the_episode() -> None:
    episode: Any = isolated("Environment").episode(PROBLEM, Prompt.of("x"))
    episode.start()
    pid = int(episode.step("a")[0]["content"])
    failed: list[BaseException] = []

    def hangs() -> None:
        try:
            episode.step("hang")
        except ElsewhereError as error:
            failed.append(error)

    thread = threading.Thread(target=hangs)
    thread.start()
    time.sleep(0.3)
    episode.close()
    thread.join(10.0)
    assert str(failed[0]) == "its process was killed"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(("said", "shown"), [("nonsense", "int"), ("number", [None])])
def test_what_are_no_messages_comes_across_as_such(said: str, shown: Any) -> None:
    assert played(isolated("Environment"), said)[0] == shown


# -- what is refused before any model loads
# -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"), [("sys.exit", "SystemExit: 0"), ("exit", "ended"), ("raise", "RuntimeError: no sandbox")]
)
def test_a_task_that_cannot_be_made_again_is_refused(how: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSLOW_TEST_MADE_IN", str(os.getpid()))
    with pytest.raises(ConfigError, match=f"task.isolate: .*{message}"):
        made("EndsWhenMadeAgain", isolate="process", options={"how": how})


def test_so_is_one_with_other_problems() -> None:
    with pytest.raises(ConfigError, match=r"task.isolate: the task has other problems"):
        made("OtherProblems", isolate="process")


def test_so_are_streams_and_a_limit_without_a_process() -> None:
    tasks = [{"name": "hostile:OneByOne"}]
    with pytest.raises(ConfigError, match="set it in each task of a stream"):
        build_task(TaskConfig(name="stream", options={"tasks": tasks, "steps": 1}, isolate="process"))
    with pytest.raises(ConfigError, match="agents run in threads of the run"):
        options = {"agent": "callers:once", "problems": tasks[0]}
        build_task(TaskConfig(name="agent", options=options, isolate="process"))
    with pytest.raises(ConfigError, match=r"task.memory_gib: .* set task.isolate"):
        made("OneByOne", memory_gib=1.0)


def test_a_part_of_a_stream_has_its_own() -> None:
    part = {"name": "hostile:OneByOne", "isolate": "process"}
    stream = build_task(TaskConfig(name="stream", options={"tasks": [part], "steps": 1}))
    assert rewards(verdicts(stream, "exit", "a")) == ["its process ended with status 0", 0.5]


@dataclass(frozen=True)
class Frozen(Task):
    """A task that cannot be changed, with a `timeout_s` of its own."""

    timeout_s: float = 5.0

    def problems(self, split: str) -> list[Problem]:
        return [PROBLEM]

    def score(self, problem: Problem, completion: str) -> Score:
        return Score(self.timeout_s / 10)


def test_the_limit_does_not_touch_what_is_the_tasks_own() -> None:
    task = build_task(TaskConfig(name=f"{__name__}:Frozen", timeout_s=0.5))
    assert rewards(verdicts(task, "a")) == [0.5]
