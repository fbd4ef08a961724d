from pathlib import Path

import pytest

from fastslow.config import Config, load_config, parse_config, with_overrides
from fastslow.errors import ConfigError
from fastslow.methods.registry import find_method

ROOT = Path(__file__).parents[3]
MINIMAL = {"model": {"name": "m"}, "task": {"name": "star_graph"}}
SHIPPED = sorted(
    [*ROOT.glob("src/fastslow/**/*.yaml"), *ROOT.glob("experiments/*/*.yaml"), *ROOT.glob("benchmarks/*.yaml")]
)


def test_the_defaults_are_the_papers() -> None:
    config = parse_config(MINIMAL)
    assert (config.loop.population_size, config.loop.group_size, config.loop.problems_per_step) == (8, 8, 32)
    assert (config.slow.loss, config.slow.tau, config.slow.kl_coefficient) == ("cispo", 4.0, 1e-3)
    assert (config.slow.learning_rate, config.slow.warmup_steps, config.slow.betas) == (1e-6, 10, (0.9, 0.999))
    assert config.slow.weight_decay == 0.0
    assert (config.fast.anchor_problems, config.fast.metric_calls) == (192, 960)
    assert (config.evaluation.k, config.evaluation.temperature, config.evaluation.top_p) == (4, 0.6, 0.95)
    assert config.loop.baseline == "problem"
    assert config.checkpoint_every == 50


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"slow": {"lerning_rate": 1.0}}, "slow.lerning_rate: unknown key. Did you mean 'learning_rate'?"),
        ({"loop": {"group_size": "eight"}}, "loop.group_size: Input should be a valid integer, got 'eight'"),
        ({"loop": {"group_size": 0}}, "loop.group_size: Input should be greater than 0, got 0"),
        (
            {"loop": {"group_size": 6, "population_size": 4}},
            r"K = 4 does not divide loop.group_size, G = 6.*\[1, 2, 3, 6\]",
        ),
        ({"model": {}}, "model.name: is missing"),
        ({"method": "sft"}, "method: 'sft' is unknown: take one of fst, rl, prompt, distill"),
        ({"slow": {"clip_low": 0.2}}, "slow.clip_low: 0.2 sets a floor"),
        (
            {"slow": {"loss": "importance_sampling", "clip_low": 0.2}},
            "slow.clip_low: 0.2 sets a floor, which importance_sampling does not have",
        ),
        (
            {"slow": {"loss": "importance_sampling", "clip_high": 0.2}},
            "slow.clip_high: 0.2 sets a ceiling, which importance_sampling does not have",
        ),
        (
            {"slow": {"loss": "my_loss", "clip_low": 0.2}},
            "slow.clip_low: 0.2 sets a floor, which my_loss does not have",
        ),
        ({"fast": {"proposer": {"kind": "litellm"}}}, "fast.proposer.model: is missing"),
        ({"fast": {"proposer": {"kind": "openai", "model": "m"}}}, "fast.proposer.base_url: is missing"),
        ({"fast": {"metric_calls": 100}}, "fast.metric_calls: 100 must exceed fast.anchor_problems, 192"),
        ({"slow": {"betas": [0.9]}}, "slow.betas"),
        (
            {"method": "distill", "fast": {"optimiser": "frozen"}},
            "distill.prompt: 'evolve' needs a search, and fast.optimiser is 'frozen'",
        ),
        ({"method": "distill", "steps": 10}, "steps: 10 leaves none to distil, .* first distill.cycles = 10 search"),
        (
            {"loop": {"baseline": "prompt"}},
            "loop.baseline: 'prompt' .* G = 8, over loop.population_size, K = 8, leaves one .* whose advantage is "
            "always 0. Raise loop.group_size to 16 or more, lower loop.population_size, or take baseline: problem",
        ),
        (
            {"method": "rl", "loop": {"group_size": 1}},
            "loop.group_size: 1 gives groups of one rollout, .* method 'rl' would never move the "
            "weights. Take 2 or more",
        ),
        (
            {"loop": {"group_size": 1, "population_size": 1}},
            "loop.group_size: 1 gives groups of one rollout, .* 'fst' would never .* or method: prompt",
        ),
        (
            {"loop": {"prompts_per_problem": 3}},
            "loop.prompts_per_problem: M = 3 must be at most .*, K = 8, and divide loop.group_size, G = 8: .* one of "
            r"\[1, 2, 4, 8\]",
        ),
        (
            {"loop": {"prompts_per_problem": 4, "population_size": 2}},
            "M = 4 must be at most .*, K = 2, .* one of .1, 2.",
        ),
        ({"loop": {"prompts_per_problem": 0}}, "loop.prompts_per_problem: Input should be greater than 0, got 0"),
        (
            {"loop": {"baseline": "prompt", "prompts_per_problem": 8, "group_size": 8, "population_size": 16}},
            "the G/M rollouts of a problem .* loop.prompts_per_problem, M = 8, leaves one .* Raise "
            "loop.group_size to 16",
        ),
        (
            {"loop": {"prompts_per_problem": 4}, "fast": {"scores": "rollouts"}},
            "loop.prompts_per_problem: 4 leaves no problem that all prompts have answered",
        ),
        ({"distill": {"cycles": 0}}, "distill.cycles: Input should be greater than 0, got 0"),
        ({"distill": {"promt": "x"}}, "distill.promt: unknown key. Did you mean 'prompt'?"),
    ],
)
def test_wrong_configs_say_what_is_wrong(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({**MINIMAL, **tree})


@pytest.mark.parametrize("loss", ["cispo", "importance_sampling"])
def test_clips_at_their_defaults_stand_in_any_config(loss: str) -> None:
    tree = parse_config({**MINIMAL, "slow": {"loss": loss}}).model_dump(mode="json")
    assert (tree["slow"]["clip_low"], tree["slow"]["clip_high"]) == (1.0, 3.0)
    assert parse_config(tree).slow.loss == loss


def test_tau_is_one_above_the_upper_clip() -> None:
    assert parse_config({**MINIMAL, "slow": {"clip_low": 2.0, "clip_high": 0.2}}).slow.tau == 1.2


def test_everything_but_the_frozen_optimiser_searches() -> None:
    names = ("gepa", "frozen", "mine:Mine")
    found = {
        name: find_method("fst").searches(parse_config({**MINIMAL, "fast": {"optimiser": name}})) for name in names
    }
    assert found == {"gepa": True, "frozen": False, "mine:Mine": True}


@pytest.mark.parametrize(
    "tree",
    [
        {"loop": {"baseline": "prompt", "population_size": 4}},
        {"loop": {"baseline": "prompt"}, "fast": {"optimiser": "frozen"}},  # eight times the same prompt
        {"loop": {"baseline": "prompt"}, "method": "rl"},
        {"loop": {"group_size": 1}, "method": "prompt"},
        {"loop": {"group_size": 1}, "method": "distill", "distill": {"prompt": "Be brief."}},
    ],
)
def test_groups_that_can_teach_are_taken(tree: dict[str, object]) -> None:
    assert isinstance(parse_config({**MINIMAL, **tree}), Config)


def test_a_group_that_an_earlier_run_was_made_with_is_taken() -> None:
    recorded = parse_config({**MINIMAL, "loop": {"baseline": "prompt"}}, recorded=True)
    assert with_overrides(recorded, ["steps=8"]).loop.baseline == "prompt"


def test_rl_needs_no_divisor_since_it_has_one_prompt() -> None:
    config = parse_config({**MINIMAL, "method": "rl", "loop": {"group_size": 6, "population_size": 4}})
    assert find_method("rl").population_size(config) == 1


def test_distillation_searches_only_for_a_prompt_that_is_not_given() -> None:
    tree = {**MINIMAL, "method": "distill", "loop": {"group_size": 6, "population_size": 4}}
    evolved = parse_config(tree)
    method = find_method("distill")

    def facts(config: Config) -> tuple[bool, int, int]:
        return method.searches(config), method.search_steps(config), method.population_size(config)

    assert facts(evolved) == (True, 10, 4)
    given = parse_config({**tree, "distill": {"prompt": "Be brief."}, "steps": 5, "fast": {"optimiser": "frozen"}})
    assert facts(given) == (False, 0, 1)
    # All of a group is the student's, whatever the population.
    assert method.answering_prompts(evolved) == method.answering_prompts(given) == 1


def test_every_wrong_field_gets_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, "steps": -1, "seed": "x"})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["seed", "steps"]


def test_yaml_numbers_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {name: m}\ntask: {name: t}\nslow: {learning_rate: 1e-5, betas: [0.8, 0.9]}\n")
    config = load_config(path, ["steps=7", "task.options.size=3", "model.lora.rank=4", "max_rollouts="])
    assert (config.slow.learning_rate, config.slow.betas) == (1e-5, (0.8, 0.9))
    assert (config.steps, config.task.options) == (7, {"size": 3})
    assert config.model.lora is not None
    assert config.model.lora.rank == 4
    assert with_overrides(config, ["steps=8"]).steps == 8
    assert with_overrides(config, []) == config


@pytest.mark.parametrize("override", ["steps", "=3", "steps.deep=3"])
def test_a_wrong_override_is_named(tmp_path: Path, override: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {name: m}\ntask: {name: t}\nsteps: 3\n")
    with pytest.raises(ConfigError, match=f"--set '{override}'"):
        load_config(path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "is not YAML"), ("- 1", "holds list"), ("!!python/object:os.system {}", "is not YAML")],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


TWICE = "model: {name: m}\ntask: {name: t}\nloop:\n  group_size: 16\nsteps: 3\nloop:\n  population_size: 4\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWICE, "config.yaml', line 6: the key 'loop' stands in line 3 already: keep one of the two"),
        ("loop:\n  group_size: 16\n  group_size: 8\n", "line 3: the key 'group_size' stands in line 2 already"),
        ("other: {options: {steps: 1, steps: 2}}\n", "line 1: the key 'steps' stands in line 1 already"),
        ("tasks:\n- name: a\n  name: b\n", "line 3: the key 'name' stands in line 2 already"),
        ('steps: 1\n"steps": 2\n', "line 2: the key 'steps' stands in line 1 already"),
        ("seed: 010\n", "line 1: 010 is another number to YAML than it looks"),
        ("a: 1\nseed: 1:30\n", "line 2: 1:30 is another number to YAML than it looks"),
        ("seed: 0x10\n", None),
        ("seed: 1_000\n", None),
    ],
)
def test_yaml_that_is_silently_something_else(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text if "model" in text else f"{text}model: {{name: m}}\ntask: {{name: t}}\n")
    if message is None:
        assert load_config(path).seed in (16, 1000)
        return
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_key_may_override_what_is_merged_in(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {name: m}\ntask:\n  name: t\n  options: {a: &a {x: 1, y: 2}, b: {<<: *a, y: 3}}\n")
    assert load_config(path).task.options["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "task.options={a: 1, a: 2}",
            "--set 'task.options={a: 1, a: 2}', line 1: the key 'a' stands in line 1 already",
        ),
        ("task.options={", "--set 'task.options={' is not YAML"),
        ("seed=010", "--set 'seed=010', line 1: 010 is another number"),
    ],
)
def test_an_override_that_is_no_yaml_is_named(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {name: m}\ntask: {name: t}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])


def test_a_config_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: {name: m}\ntask: {name: t}\n")
    assert load_config(path).model.name == "m"
    path.write_bytes(b"model: {name: \xff}\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml' does not exist"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shipped_config_parses(path: Path) -> None:
    assert isinstance(load_config(path), Config)


def test_there_are_shipped_configs() -> None:
    assert len(SHIPPED) >= 2
