"""`own weights`: students and bases as files for other engines, and longer windows."""

from ownweights.cli.weights.command import weights

__all__ = ["weights"]
