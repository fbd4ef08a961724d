"""Agents that tests train, written with the OpenAI client as a user would write them."""

import threading
import time
from typing import Any

import httpx
import openai
from openai import OpenAI

from fastslow.types import Score

HTTP = httpx.Client(timeout=60.0)
"""Making one reads the machine's certificates, which takes longer than an episode here."""


def client_of(base_url: str, api_key: str) -> OpenAI:
    return OpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=HTTP)


def talk(
    base_url: str, api_key: str, messages: list[Any], problem: Any, tries: int = 3, bears: bool = False
) -> tuple[float, str]:
    """The game of `toy.TalkTask`: the agent names the letter that is missing. `bears`: no limit makes it raise."""
    client, heard, chat = client_of(base_url, api_key), "", list(messages)
    missing = problem.data["letters"]
    for _ in range(tries + 1):
        try:
            said = client.chat.completions.create(model="policy", messages=chat).choices[0].message.content or ""
        except openai.BadRequestError:
            if bears:
                break
            raise
        heard += said
        missing = "".join(letter for letter in problem.data["letters"] if letter not in heard)
        if not missing:
            break
        chat += [{"role": "assistant", "content": said}, {"role": "user", "content": f"and {missing[0]}"}]
    return 1.0 - len(missing) / 2, f"Write the letter {missing[0]}." if missing else ""


def once(base_url: str, api_key: str, messages: list[Any]) -> str:
    """One call; the task's own scorer judges its answer."""
    client = client_of(base_url, api_key)
    return client.chat.completions.create(model="any", messages=messages).choices[0].message.content or ""


def troubled(base_url: str, api_key: str, messages: list[Any], problem: Any, trouble: dict[str, str]) -> Any:
    """One call, then what the problem's number stands for in `trouble`."""
    client = client_of(base_url, api_key)
    what = trouble.get(problem.id.rpartition("-")[2], "")
    if what == "silent":
        return 1.0
    client.chat.completions.create(model="any", messages=messages)
    if what == "hang":
        time.sleep(30)
    if what == "exit":
        raise SystemExit(1)
    if what == "raise":
        raise RuntimeError(f"the agent crashed with {api_key}")
    if what == "flood":
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "x" * 1_000_000}])
    if what == "late":
        threading.Thread(target=later, args=(client, messages), daemon=True).start()
    return Score(1.0)


LATE: list[Exception] = []


def later(client: OpenAI, messages: list[Any]) -> None:
    time.sleep(0.2)
    try:
        client.chat.completions.create(model="any", messages=messages)
    except Exception as error:
        LATE.append(error)
