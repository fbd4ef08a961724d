"""Games of TextArena: seeds, side by side, legal opponents, rewards, what cannot be played."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ConfigError
from fastslow.fast.transcript import turns_of
from fastslow.tasks.base import Task
from fastslow.tasks.environments.textarena import UNSEEDED, TextArenaTask
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.testing.episodes import check_episodes
from fastslow.testing.tasks import check_task
from speaker import Speaker, roll

pytest.importorskip("textarena")

SIZES = {"train": 6, "validation": 3, "test": 3}


def task_of(game: str, **options: Any) -> Task:
    return build_task(TaskConfig(name=f"textarena:{game}", options={**SIZES, **options}))


def number_of(task: Any, problem: Any) -> int:
    episode = task.episode(problem, task.seed_prompt)
    episode.start()
    return int(episode.game.state.game_state["game_number"])


def test_the_suite_for_authors_passes() -> None:
    task = task_of("GuessTheNumber-v0")
    check_task(task, again=task_of("GuessTheNumber-v0"))
    check_episodes(task, plays=lambda problem: ["[1]", f"[{number_of(task, problem)}]"])


def test_each_problem_has_its_game_and_splits_share_no_seed() -> None:
    task, other = task_of("GuessTheNumber-v0"), task_of("GuessTheNumber-v0", seed=1)
    problems = [p for t in (task, other) for split in SIZES for p in t.problems(split)]  # type: ignore[arg-type]
    assert len({p.data["seed"] for p in problems}) == len(problems) == 24
    alone = [number_of(task, problem) for problem in problems]
    assert len(set(alone)) > 5
    found: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: [number_of(task, p) for p in problems]})) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [alone] * 4


def test_a_turn_shows_what_is_new_and_reflection_hears_why_it_ended() -> None:
    task = task_of("GuessTheNumber-v0", game_options={"max_turns": 3})
    number = number_of(task, task.problems("train")[0])
    ((rollout,),) = roll(Speaker("no", f"[{number % 20 + 1}]", f"[{number}]"), task)
    spoken = turns_of(rollout)
    assert spoken[0][1].startswith("You are Player 0. You are playing Guess The Number.")
    assert "invalid move" in spoken[2][1] and "Guess The Number" not in spoken[2][1]
    assert "The target number is" in spoken[4][1] and spoken[4][1].count("\n") == 0
    assert rollout.reward == 1.0
    assert rollout.feedback.splitlines()[0].startswith("Invalid move format.")
    ((lost,),) = roll(Speaker("no"), task)
    assert lost.end == "done" and lost.reward is not None and lost.reward < 1.0 and "Invalid" in lost.feedback


@pytest.mark.parametrize("game", ["TicTacToe-v0", "ConnectFour-v0", "KuhnPoker-v0"])
def test_a_random_opponent_plays_legal_moves_the_same_ones_each_time(game: str) -> None:
    task = task_of(game)
    assert {problem.data["seat"] for problem in task.problems("train")} == {0, 1}

    def play(problem: Any) -> tuple[list[Any], Any]:
        episode: Any = task.episode(problem, task.seed_prompt)
        said = list(episode.start())
        for _ in range(30):
            # Our own moves are legal as well: found the same way.
            episode.seen[episode.seat] = "\n".join(m["content"] for m in said)
            answer = episode.step(episode._legal(episode.seat))
            said += answer
            if not answer:
                break
        assert episode.over
        return said, episode.score()

    for problem in task.problems("train")[:4]:
        first, second = play(problem), play(problem)
        assert first == second
        assert first[1].reward in (0.0, 0.5, 1.0) or game == "KuhnPoker-v0"
        assert "nvalid" not in first[1].feedback


def lowest(observation: str) -> str:
    """An opponent of somebody's own: the lowest cell that is free."""
    free = [cell for cell in range(9) if f" {cell} " in observation[observation.rindex("Current Board") :]]
    return f"[{free[0]}]"


def test_an_opponent_of_ones_own_and_the_reward_of_a_loss() -> None:
    task = TextArenaTask("TicTacToe-v0", seat=1, opponent=lowest, **SIZES)
    ((rollout,),) = roll(Speaker("[8]", "[7]", "[3]"), task)
    assert (rollout.reward, rollout.end) == (0.0, "done")
    assert "won" in rollout.feedback


@pytest.mark.parametrize(
    ("game", "options", "message"),
    [
        ("GuesTheNumber-v0", {}, "TextArena has no game 'GuesTheNumber-v0'. Did you mean GuessTheNumber-v0"),
        ("GuessTheNumber-v0", {"players": 3}, "task.options.players: .* does not start with 3"),
        ("GuessTheNumber-v0", {"seat": 1}, "task.options.seat: 1: the seats are 0 to 0"),
        ("GuessTheNumber-v0", {"game_options": {"colour": 1}}, "cannot be made with {'colour': 1}"),
        # On Python 3.11 it cannot be imported, on later ones it draws from numpy.
        ("IteratedStagHunt-v0", {}, "'IteratedStagHunt-v0' (cannot be made|draws from numpy, which cannot be seeded)"),
    ],
)
def test_what_cannot_be_played_is_told_before_a_model_loads(game: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_of(game, **options)


def test_word_games_say_what_they_need_and_play_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    monkeypatch.setattr(nltk, "download", lambda *args, **kwargs: False)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    sys.modules.pop("textarena.envs.Hangman.env", None)
    with pytest.raises(ConfigError, match=r"needs data of nltk.*python -m nltk.downloader words"):
        task_of("Hangman-v0")
    corpus = tmp_path / "corpora" / "words"
    corpus.mkdir(parents=True)
    for name in ("en", "en-basic"):
        (corpus / name).write_text("apple\ncedar\n")
    (corpus / "README").write_text("")
    sys.modules.pop("textarena.envs.Hangman.env", None)
    task = task_of("Hangman-v0")
    episode: Any = task.episode(task.problems("train")[0], task.seed_prompt)
    assert "playing Hangman" in episode.start()[-1]["content"]
    word = episode.game.state.game_state["target_word"]
    assert word in ("apple", "cedar") and not episode.step(f"[{word}]")
    assert episode.score().reward == 1.0


def test_numpy_is_seen_in_a_games_source() -> None:
    assert UNSEEDED.search("x = np.random.randint(3)") and UNSEEDED.search("numpy.random.choice(names)")
    assert not UNSEEDED.search("rng = np.random.default_rng(seed)\nnp.random.Generator")
