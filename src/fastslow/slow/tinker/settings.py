"""The config of the remote engine."""

from typing import Literal

from fastslow.section import Positive, PositiveNumber, Section, option


class TinkerConfig(Section):
    """The server of `engine: tinker`. The section may change when a run is resumed."""

    base_url: str = option(meaning="its address, `http://HOST:PORT`", unit="address")
    backend: Literal["hosted", "jax", "fsdp", "megatron"] = option(
        meaning="`hosted`, or SkyRL's `jax`, `fsdp`, `megatron`: how it sums losses and takes thresholds", unit="a name"
    )
    base_model: str | None = option(None, "what the server calls the model; null: `model.name`", unit="a name")
    api_key_env: str | None = option(
        None, "the environment variable that holds the key; a self-hosted server needs none", unit="name of a variable"
    )
    connect_timeout_s: PositiveNumber = option(30.0, "how long to wait for it to come up", unit="seconds")
    outage_s: PositiveNumber = option(120.0, "how long to wait for it to come back", unit="seconds")
    batch_timeout_s: PositiveNumber = option(7200.0, "how long to wait for one batch", unit="seconds")
    download_weights: bool = option(True, "put the trained adapter into each checkpoint", unit="yes or no")
    context_limit: Positive | None = option(
        None, "positions of the server's context; null: the smaller of the server's and the model's", unit="tokens"
    )
