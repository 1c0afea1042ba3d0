"""`own traffic`: the store from a shell.

command.py    import, list, facets, stats, show, search, export, verify
retention.py  prune and delete
erase.py      what a deletion reaches beyond the store
"""

from ownweights.cli.traffic.command import traffic

__all__ = ["traffic"]
