"""The demo's model says answers in the very form that its task scores."""

import random

from examples.demo.make_model import example, make_tokenizer


def test_an_answer_survives_the_tokenizer() -> None:
    tokenizer, rng = make_tokenizer(), random.Random(0)
    for system, question, answer in (example(rng) for _ in range(50)):
        for text in (answer, question):
            assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
        assert tokenizer.unk_token_id not in tokenizer(system, add_special_tokens=False)["input_ids"]
