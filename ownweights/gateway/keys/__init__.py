"""The gateway's own keys: who holds one, what it may do, what it has spent.

key ─ KeyStore (own.db) ─ KeyRing (memory, read again each moment) ─ callers
                └───────── Tally (what was spent here, and elsewhere) ─┘
"""

from ownweights.gateway.keys.key import Key, Limits, new_key
from ownweights.gateway.keys.ring import KeyRing
from ownweights.gateway.keys.store import KeyStore
from ownweights.gateway.keys.tally import Spent

__all__ = ["Key", "KeyRing", "KeyStore", "Limits", "Spent", "new_key"]
