"""An agent that asks three times and gives the answer that comes most often. Any OpenAI client would do."""

from collections import Counter
from collections.abc import Mapping, Sequence

import httpx
from openai import OpenAI

# One for all episodes: making one takes longer than an episode of a small model. Without a limit of connections: a wave
# begins when every agent calls, and by default the 101st would wait for the others to be answered.
HTTP = httpx.Client(timeout=600.0, limits=httpx.Limits(max_connections=None))


def vote(base_url: str, api_key: str, messages: Sequence[Mapping[str, str]], votes: int = 3) -> str:
    """The most frequent of some answers, the first of those on a par. The task's own scorer judges it."""
    client = OpenAI(base_url=base_url, api_key=api_key, http_client=HTTP, max_retries=0)
    reply = client.chat.completions.create(model="policy", messages=list(messages), n=votes)
    return Counter(choice.message.content or "" for choice in reply.choices).most_common(1)[0][0]
