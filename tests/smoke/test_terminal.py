"""What people look at while a run goes on: a real pseudo-terminal, and a real pipe."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from runs import small_config

TESTS = Path(__file__).parents[1]
ROWS, COLUMNS = 24, 90
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
LONG_PROMPT = "\\n".join(f"Rule {number}: {'go ' * 6}" for number in range(40))
SLOW_TASK = f'''
import hashlib, os, time
from toy import LettersTask
from fastslow.types import Prompt

class AwayTask(LettersTask):
    """Its third batch of scores keeps the main thread in C code for a long time, where no signal handler can run."""
    name = "away"
    batches = 0

    @property
    def seed_prompt(self):
        return Prompt.of("{LONG_PROMPT}")

    def score_batch(self, problems, completions):
        time.sleep(float(os.environ.get("SCORE_S", 0)))
        AwayTask.batches += 1
        if AwayTask.batches == 3:
            start = time.perf_counter()
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 200_000)
            rounds = max(1, int(200_000 * float(os.environ["AWAY_S"]) / (time.perf_counter() - start)))
            print("AWAY", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", rounds)
        return super().score_batch(problems, completions)
'''


class Terminal:
    """A process in a pseudo-terminal; `text` is everything that it has written, escape sequences included."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        # A session of its own, so that the terminal is its controlling one and turns ^C into a signal.
        self.process = subprocess.Popen(
            command, cwd=TESTS, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def read_until(self, words: str, timeout_s: float = 120.0) -> float:
        """Wait for some words, or for the end where they are ""; the seconds that it took."""
        start, known = time.monotonic(), len(self.text)
        while not words or words not in self.text[known:]:
            left = start + timeout_s - time.monotonic()
            assert left > 0, f"{words!r} did not come within {timeout_s} s: ...{self.text[-2000:]}"
            if not select.select([self.master], [], [], left)[0]:
                continue
            try:
                part = os.read(self.master, 65536)
            except OSError:  # Linux says so when the other side is closed
                part = b""
            if not part:
                assert not words, f"it ended without {words!r}: ...{self.text[-2000:]}"
                break
            self.text += part.decode(errors="replace")
        return time.monotonic() - start

    def press_ctrl_c(self) -> None:
        os.write(self.master, b"\x03")

    @property
    def plain(self) -> str:
        return ESCAPES.sub("", self.text)


@contextmanager
def terminal(command: list[str], environment: dict[str, str]) -> Iterator[Terminal]:
    shown = Terminal(command, environment)
    try:
        yield shown
    finally:
        if shown.process.poll() is None:
            os.killpg(shown.process.pid, signal.SIGKILL)
        shown.process.wait()
        os.close(shown.master)


def prepared(
    model: Path, directory: Path, task: str, away_s: float = 0.0, **changes: object
) -> tuple[Path, dict[str, str]]:
    """The config of a run, and the environment of its process."""
    (directory / "away.py").write_text(SLOW_TASK, encoding="utf-8")
    tree = small_config(model, directory / "run", task={"name": task}, steps=2, **changes).model_dump(mode="json")
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    search = os.pathsep.join([str(directory), str(TESTS), *sys.path])
    environment = {
        **os.environ,
        "PYTHONPATH": search,
        "CUDA_VISIBLE_DEVICES": "",
        "TERM": "xterm",
        "AWAY_S": str(away_s),
    }
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    return path, environment


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "fastslow", "train", str(config)]


@pytest.mark.slow
def test_a_run_in_a_terminal_from_its_first_moment_to_its_summary(tiny_model_dir: Path, tmp_path: Path) -> None:
    path, environment = prepared(tiny_model_dir, tmp_path, "away:AwayTask")
    environment["SCORE_S"] = "0.3"  # a search that is over at once shows nothing
    with terminal(command(path), environment) as shown:
        shown.read_until("")
        assert shown.process.wait() == 0, shown.plain
    text, plain = shown.text, shown.plain
    assert "loading: 0m0" in plain, "it shows that it lives while the model loads"
    assert "metric calls" in plain and "prompts" in plain
    assert re.search(r"step 1 .*0m\d\ds left", plain), "there is a time left from the first step on"
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    summary = plain[plain.rindex("run        ") :]
    for words in (
        "best prompt",
        "accuracy",
        "95 % intervals",
        "KL to base",
        "rollouts",
        "time",
        "no calls of a language model",
    ):
        assert words in summary
    run = tmp_path / "run"
    steps = re.findall(r"^ {12}fastslow \w+|^next +fastslow \w+", summary, re.MULTILINE)
    assert [line.split()[-1] for line in steps] == ["report", "evaluate", "export"]
    assert str(run) in summary


@pytest.mark.slow
def test_ctrl_c_is_heard_while_the_main_thread_is_away_and_the_second_one_ends_it(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    path, environment = prepared(tiny_model_dir, tmp_path, "away:AwayTask", away_s=90.0)
    with terminal(command(path), environment) as shown:
        shown.read_until("AWAY")
        shown.press_ctrl_c()
        # Within a second where the machine is not busy with something else.
        assert shown.read_until("press Ctrl-C again", 15.0) < 10.0
        begin = time.monotonic()
        shown.press_ctrl_c()
        shown.read_until("", 60.0)
        assert shown.process.wait() == 130
        assert time.monotonic() - begin < 45.0
    assert "stopped at once" in shown.plain
    assert "Traceback" not in shown.plain
    assert shown.text.rindex(SHOW_CURSOR) > shown.text.rindex(HIDE_CURSOR)
    assert shown.plain.count("interrupted: this step is finished and saved first") == 1


@pytest.mark.slow
def test_a_log_in_a_pipe_is_never_silent_for_long(tiny_model_dir: Path, tmp_path: Path) -> None:
    path, environment = prepared(tiny_model_dir, tmp_path, "away:AwayTask", away_s=3.0)
    program = (
        "import sys; from fastslow.cli import main, progress; progress.SILENCE_S = 0.3; "
        "sys.exit(main.main(sys.argv[1:]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, "train", str(path)], cwd=TESTS, env=environment, capture_output=True, text=True,
        timeout=180, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "\x1b" not in process.stdout
    away = process.stdout[process.stdout.index("AWAY") :].splitlines()[1:]
    waiting = [line for line in away if re.match(r"  evolving: \d+/24 metric calls, \d+ prompts", line)]
    assert len(waiting) >= 3, process.stdout
    assert re.search(r"^step 1 \| .*left$", process.stdout, re.MULTILINE)
    assert "fastslow evaluate" in process.stdout
