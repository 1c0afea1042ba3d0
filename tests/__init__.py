"""The tests, in the shape of the package: `tests/<package>/test_<file>.py`."""
