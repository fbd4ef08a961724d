"""The lab: a small world and model in which fast and slow learning can be measured on a laptop. See docs/lab.md."""
