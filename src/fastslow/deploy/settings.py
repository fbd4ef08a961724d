"""What `fastslow serve` does where nothing else is said."""

DEFAULT_PORT = 8000
AT_ONCE = 32
MAX_REQUEST_BYTES = 4_000_000
