"""`fastslow.train` and its sisters: keywords and Python objects in, calls of the rooms below out."""
