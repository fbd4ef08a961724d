"""What a reflection call costs, and whose price it has: the config's, a provider's list price, none,
or one nobody knows.

LiteLLM's list has the prices of hosted models by their names, and a server of one's own may serve a model of the same
name. So the list counts for a provider's own address alone.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

Billing = Literal["free", "list", "unknown"]
OWN_SERVERS = frozenset(
    {
        "ollama", "ollama_chat", "vllm", "hosted_vllm", "lm_studio", "llamafile", "xinference", "oobabooga", "infinity",
        "docker_model_runner", "lemonade", "petals", "triton",
    }
)  # fmt: skip
"""LiteLLM's providers that are programs for a machine of one's own."""
UNKNOWN_PRICE = (
    "the price is not known: give fast.proposer.usd_per_million_input_tokens and usd_per_million_output_tokens, both 0 "
    "for a server of your own"
)
LOCAL_NAMES = re.compile(r"(^|\.)(localhost|local|lan|internal|intranet|home\.arpa|localdomain)$|^[^.:]+$|\.svc$")
"""Names that no public DNS server has: those of the machine itself, of its network, of containers and of clusters."""
SHARED_SPACE = ipaddress.ip_network("100.64.0.0/10")
"""RFC 6598: addresses of a provider's or a virtual private network."""


def billing(provider: str, address: str | None) -> Billing:
    """Which price a call to a provider at an address has, where the config gives none. `address`:
    None is the provider's own.

    A program for one's own machine on one's own network costs nothing. Any other model at a local address may be the
    user's own, or a proxy to a hosted one, and so may such a program somewhere on the internet: nobody knows its price.
    """
    own = provider in OWN_SERVERS
    if address is None:
        return "free" if own else "list"
    if is_local(address):
        return "free" if own else "unknown"
    return "unknown" if own else "list"


def address_of(provider: str, base_url: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Where LiteLLM sends calls: the config's address, or the environment's for the provider; None: LiteLLM's own."""
    names = (f"{provider.upper()}_{suffix}" for suffix in ("API_BASE", "BASE_URL"))
    return base_url or next((environment[name] for name in names if environment.get(name, "").strip()), None)


def is_local(address: str) -> bool:
    """Whether an address, with or without its scheme, is of this machine or a private network. Nothing is looked up."""
    try:
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return False
    host = host.rstrip(".").partition("%")[0]
    try:
        found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host)
    except ValueError:
        return bool(LOCAL_NAMES.search(host))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    found = mapped or found
    shared = isinstance(found, ipaddress.IPv4Address) and found in SHARED_SPACE
    return found.is_private or found.is_loopback or found.is_link_local or found.is_unspecified or shared
