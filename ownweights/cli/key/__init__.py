"""`own key`: keys of the gateway's own."""

from ownweights.cli.key.command import key

__all__ = ["key"]
