"""`fastslow reproduce`: all tables of the README and docs/results.md from nothing, and what they say of the paper."""
