"""`fastslow init`: looks at a dataset and writes a config, a scorer to fill in, and a README."""
