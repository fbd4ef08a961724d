"""Experiments: many ordinary runs over methods, seeds and settings, resumable, with results appended as they come."""
