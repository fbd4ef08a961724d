"""Where the teacher's prompt of `method: distill` comes from, and what is said where it cannot; no model loads here."""

from pathlib import Path
from typing import Any

import pytest

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.runs.directory import RunDirectory
from fastslow.training.build import check
from fastslow.types import Prompt

from runs import small_config

NO_MODEL = Path("no-model-is-needed")


def config_of(prompt: Any, **overrides: Any) -> Config:
    return small_config(NO_MODEL, Path("run"), **{"method": "distill", "distill": {"prompt": prompt}, **overrides})


def make_run(directory: Path, *population: str) -> Path:
    run = RunDirectory(directory)
    run.create(small_config(NO_MODEL, directory))
    if population:
        run.write_population(1, 0, [Prompt.of(text) for text in population], {})
    run.close()
    return directory


def test_a_prompt_is_resolved_to_its_text_wherever_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("\nBe brief.\nBe kind.\n", encoding="utf-8")
    run = make_run(tmp_path / "my run", "Best of all", "Second best")
    for given, text in (
        ("Be brief.", "Be brief."),
        ("Line one: x.\n" + "Be brief. " * 900, "Line one: x.\n" + "Be brief. " * 900),
        ({"system": "brief"}, "brief"),
        (f"@{tmp_path / 'prompt.txt'}", "Be brief.\nBe kind."),
        (str(run), "Best of all"),
    ):
        config, _ = check(config_of(given))
        assert config.distill.prompt == {"system": text}
        assert check(config)[0] == config  # as a resumed run finds it
    evolved, _ = check(config_of("evolve", distill={"cycles": 2}))
    assert evolved.distill.prompt == "evolve"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("@nowhere.txt", r"the file 'nowhere.txt' does not exist"),
        ("@empty.txt", r"'@empty.txt' is empty: the teacher needs a prompt"),
        ("runs/nowhere", r"'runs/nowhere' is neither evolve, @FILE, the directory of a run nor a text"),
        ("", r"'' is neither"),
        ("./young", r".*young' has no population yet"),
        ("./stale", r"is the task's seed prompt, .*nothing to distil"),
        ({"skills": "Add."}, r"has the components \['skills'\], those of task 'letters' are \['system'\]"),
    ],
)
def test_a_prompt_that_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n", encoding="utf-8")
    make_run(Path("young"))
    make_run(Path("stale"), "go")
    with pytest.raises(ConfigError, match=f"distill.prompt: {message}"):
        check(config_of(given))


@pytest.mark.parametrize("method", ["fst", "rl", "distill"])
def test_training_rollouts_without_their_tail_are_refused(method: str) -> None:
    given = {"distill": {"prompt": "Be brief."}} if method == "distill" else {}
    cut = small_config(NO_MODEL, Path("run"), method=method, sampling={"top_p": 0.9}, **given)
    with pytest.raises(ConfigError, match=r"sampling.top_p: 0.9 cuts unlikely tokens out .* Set it to 1.0"):
        check(cut)
    whole = small_config(NO_MODEL, Path("run"), method=method, sampling={"temperature": 0.6}, **given)
    check(whole)  # the evaluation's own top_p, 0.95, is nobody's business here
    assert whole.evaluation.top_p == 0.95


def test_prompts_alone_may_be_searched_with_any_sampling() -> None:
    check(small_config(NO_MODEL, Path("run"), method="prompt", sampling={"top_p": 0.9, "temperature": 0.6}))


@pytest.mark.parametrize("method", ["fst", "rl"])
def test_a_server_trains_at_temperature_1_alone(method: str) -> None:
    remote = {
        "engine": "tinker",
        "tinker": {"base_url": "http://127.0.0.1:9", "backend": "jax"},
        "model": {"name": "some/model", "lora": {"rank": 4}},
    }
    config = small_config(NO_MODEL, Path("run"), method=method, sampling={"temperature": 0.6}, **remote)
    with pytest.raises(ConfigError, match=r"sampling.temperature: 0.6 with engine: tinker: .* Set it to 1.0"):
        check(config)


def test_a_stream_of_tasks_cannot_be_distilled() -> None:
    tasks = [{"name": "toy:LettersTask"}, {"name": "toy:OtherLettersTask"}]
    task = {"name": "stream", "options": {"tasks": tasks, "steps": 2}}
    with pytest.raises(ConfigError, match=r"method: 'distill' takes one task, and 'stream' is several in turn"):
        check(config_of("Be brief.", task=task))
