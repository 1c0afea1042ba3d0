"""One file per claim that we make; each yields result lines (see bench/result.py).

A bench is a module with `cases(*, is_quick, seed)`, a generator of lines. `make bench NAME=start`
runs bench/start.py, prints its lines and appends them to bench/results/start.jsonl.
"""
