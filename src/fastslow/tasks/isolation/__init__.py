"""Scorers and environments in processes of their own, so that what ends or fills a process costs one rollout."""
