"""Pretraining: a row of questions under one prompt is the same as the questions one by one; the whole path works."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from fastslow.cli.main import main
from fastslow.lab.corpus import UNKNOWN, Text, draw_text, make_tokenizer, phrases
from fastslow.lab.muon import Muon, orthogonalise
from fastslow.lab.pretrain import IGNORED, Recipe, batches, collate, encode, model_config, pretrain, schedule
from fastslow.lab.rules import RULES

TINY = Recipe(width=24, layers=2, heads=2, inner=32, rows=3, turns=3, stated_steps=2, habit_steps=2, warmup_steps=2)


def texts(count: int) -> list[Text]:
    rng = random.Random(0)
    return [draw_text(rng, 3, habits=True) for _ in range(count)]


def test_questions_that_share_a_prompt_do_not_see_each_other() -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(model_config(TINY, tokenizer)).eval()
    rows = encode(texts(3), tokenizer)
    batch = collate(rows, tokenizer)
    with torch.no_grad():
        packed = model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask).logits
    for index, (system, *turns) in enumerate(rows):
        start = len(system)
        for asked, answered in zip(turns[::2], turns[1::2], strict=True):
            with torch.no_grad():
                alone = model(input_ids=torch.tensor([[*system, *asked, *answered]])).logits[0, len(system) :]
            size = len(asked) + len(answered)
            torch.testing.assert_close(packed[index, start : start + size], alone, atol=1e-5, rtol=1e-4)
            assert batch.labels[index, start : start + size].tolist() == [IGNORED] * len(asked) + answered
            start += size
        assert (batch.labels[index, start:] == IGNORED).all()


def test_pieces_are_what_the_chat_template_puts_together() -> None:
    tokenizer = make_tokenizer()
    for text, (system, asked, answered, *_) in zip(texts(5), encode(texts(5), tokenizer), strict=True):
        messages = [{"role": "system", "content": text.system}, {"role": "user", "content": text.turns[0][0]}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == [*system, *asked]
        assert tokenizer.decode(answered, skip_special_tokens=True).split() == text.turns[0][1].split()
        assert answered[-1] == tokenizer.eos_token_id


def test_the_model_knows_every_phrase_and_not_the_unseen_verdicts() -> None:
    tokenizer = make_tokenizer()
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    assert all(unknown not in tokenizer(phrase)["input_ids"] for phrase in phrases())
    unseen = [rule.verdict for rule in RULES.values() if rule.verdict not in rule.sentences]
    assert all(unknown in tokenizer(verdict)["input_ids"] for verdict in unseen)


def test_muon_makes_directions_orthogonal() -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonalise(torch.randn(2, 4, 6)))
    assert ((singular > 0.6) & (singular < 1.3)).all()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_muon_learns(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    goal, weight = torch.randn(shape), torch.nn.Parameter(torch.zeros(shape))
    optimiser = Muon([weight], lr=0.05, weight_decay=0.0)
    losses = []
    for _ in range(60):
        loss = (weight - goal).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    with pytest.raises(ValueError, match="without a gradient"):
        Muon([torch.nn.Parameter(torch.zeros(2, 2))], lr=0.1).step()


def test_the_learning_rate_warms_up_and_goes_down_in_two_lines() -> None:
    recipe = Recipe(
        stated_steps=60, stated_horizon=110, habit_steps=40, habit_share=0.5, warmup_steps=10, final_share=0.1
    )
    assert [schedule(recipe, step) for step in (1, 5, 10, 60)] == pytest.approx([0.1, 0.5, 1.0, 0.55])
    assert [schedule(recipe, step) for step in (61, 80, 100)] == pytest.approx([0.49, 0.3, 0.1])


def test_the_same_seed_makes_the_same_weights_and_habits_come_late(tmp_path: Path) -> None:
    seen: list[int] = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        recipe = Recipe(**{**vars(TINY), "seed": seed})
        made = pretrain(recipe, tmp_path / name, lambda step, loss, seconds: seen.append(step))
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]
    assert seen[:4] == [1, 2, 3, 4]
    assert made["examples"] == 36
    assert made["tokens"] > 36 * 10
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert model.dtype == torch.float16
    assert AutoTokenizer.from_pretrained(tmp_path / "a").chat_template
    tokenizer = make_tokenizer()
    assert len(list(batches(TINY, tokenizer))) == TINY.steps


def test_the_command_makes_a_model_with_a_card_that_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = Recipe(**{**vars(TINY), "rows": 2})
    monkeypatch.setattr("fastslow.lab.pretrain.Recipe", lambda **changes: Recipe(**{**vars(tiny), **changes}))
    monkeypatch.setattr("fastslow.lab.card.stated_accuracy", lambda engine: {"1": 0.0})
    monkeypatch.setattr("fastslow.lab.card.rule_accuracy", lambda engine, name: 0.0)
    arguments = ["lab", "pretrain", str(tmp_path / "m"), "--steps", "2", "--threads", "1", "--floor-samples", "16"]
    assert main(arguments) == 0
    assert "step 4 of 4" in capsys.readouterr().out
    card = json.loads((tmp_path / "m" / "card.json").read_text(encoding="utf-8"))
    assert card["recipe"]["habit_steps"] == 2
    assert card["tasks"]["amber"]["floor_samples"] == 16
    assert "## Licence" in (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err
