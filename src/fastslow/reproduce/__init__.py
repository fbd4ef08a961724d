"""`fastslow reproduce`: every table of the README and of docs/results.md from nothing, and what they say of the paper."""
