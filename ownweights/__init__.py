"""Turns recorded traffic to a rented model into a small model of your own, and proves it.

Import the package you need (`ownweights.traffic`, `ownweights.dataset`, ...); this module holds the
version alone so that `import ownweights` stays cheap and never loads torch.
"""

__version__ = "0.1.0"
