"""Rendering: a system text reaches the model whatever its chat template can do."""

from typing import Any

from fastslow.slow.chat import ChatRenderer, fold_system

from tiny import CHAT_TEMPLATE, make_tokenizer

RAISES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT_TEMPLATE
)
DROPS = (
    "{% for message in messages if message.role != 'system' %}<|{{ message.role }}|>{{ message.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"})


def text_of(template: str | None, messages: Any = MESSAGES, **kwargs: Any) -> str:
    tokenizer = make_tokenizer(template)
    return tokenizer.decode(list(ChatRenderer(tokenizer, kwargs).encode(messages)))


def test_a_system_role_is_used_where_there_is_one() -> None:
    assert text_of(CHAT_TEMPLATE) == "<|system|>Be brief.<|end|><|user|>2+2?<|end|><|assistant|>"


def test_a_template_that_raises_on_system_gets_the_text_in_the_user_message() -> None:
    assert not ChatRenderer(make_tokenizer(RAISES)).has_system_role
    assert text_of(RAISES) == "<|user|>Be brief.\n\n2+2?<|end|><|assistant|>"


def test_a_template_that_silently_drops_the_system_text_gets_it_in_the_user_message() -> None:
    assert not ChatRenderer(make_tokenizer(DROPS)).has_system_role
    assert text_of(DROPS) == "<|user|>Be brief.\n\n2+2?<|end|><|assistant|>"


def test_without_a_template_the_contents_are_joined() -> None:
    assert text_of(None) == "Be brief.\n\n2+2?\n\n"


def test_a_conversation_keeps_its_turns() -> None:
    turns = [*MESSAGES, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Sure?"}]
    expected = "<|user|>Be brief.\n\n2+2?<|end|><|assistant|>4<|end|><|user|>Sure?<|end|><|assistant|>"
    assert text_of(RAISES, turns) == expected


def test_template_kwargs_reach_the_template() -> None:
    template = CHAT_TEMPLATE + "{% if not enable_thinking %}.{% endif %}"
    assert text_of(template, enable_thinking=False).endswith("<|assistant|>.")
    assert text_of(template, enable_thinking=True).endswith("<|assistant|>")


def test_fold_system_copies_and_never_mutates() -> None:
    messages = [dict(message) for message in MESSAGES]
    assert fold_system(messages) == [{"role": "user", "content": "Be brief.\n\n2+2?"}]
    assert messages == list(MESSAGES)
    user = [{"role": "user", "content": "Hi"}]
    assert fold_system(user) == user
    assert fold_system(user)[0] is not user[0]


def test_fold_system_with_nothing_after_it_and_with_nothing_at_all() -> None:
    assert fold_system(MESSAGES[:1]) == [{"role": "user", "content": "Be brief."}]
    assert fold_system([]) == []
