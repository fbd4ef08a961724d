"""Environments that were written for other trainers, brought as they are."""
