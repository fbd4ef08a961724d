"""The config of the remote engine."""

from typing import Literal

from fastslow.section import Address, Positive, PositiveNumber, Section, VariableName, option


class TinkerConfig(Section):
    """The server of `engine: tinker`. The section may change when a run is resumed."""

    base_url: Address = option(meaning="its address, `http://HOST:PORT`", unit="address")
    backend: Literal["hosted", "jax", "fsdp", "megatron"] = option(
        meaning="`hosted`, or SkyRL's `jax`, `fsdp`, `megatron`",
        unit="a name",
        more="It says how the server sums losses and takes thresholds.",
    )
    base_model: str | None = option(None, "what the server calls the model; null: `model.name`", unit="a name")
    api_key_env: VariableName | None = option(
        None,
        "the environment variable that holds the key",
        unit="name of a variable",
        more="A self-hosted server needs none.",
    )
    connect_timeout_s: PositiveNumber = option(30.0, "how long to wait for it to come up", unit="seconds")
    outage_s: PositiveNumber = option(120.0, "how long to wait for it to come back", unit="seconds")
    batch_timeout_s: PositiveNumber = option(7200.0, "how long to wait for one batch", unit="seconds")
    download_weights: bool = option(True, "put the trained adapter into each checkpoint", unit="yes or no")
    context_limit: Positive | None = option(
        None,
        "positions of the context; null: the server's or the model's",
        unit="tokens",
        more="null takes the smaller of the two. Give it where the server holds fewer and does not say so.",
    )
