"""How long hypothesis looks: always the same few examples in the suite, `FASTSLOW_FUZZ` new ones of each test otherwise."""

import os

from hypothesis import HealthCheck, settings

WANTED = os.environ.get("FASTSLOW_FUZZ")

settings.register_profile(
    "fastslow",
    max_examples=int(WANTED or "40"),
    derandomize=WANTED is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
settings.load_profile("fastslow")
