"""`own demo`: the whole loop once.

command    the command and what it prints
rehearsal  the folder, the settings and the figures of a run
loop       the steps, from records to a served student
"""

from ownweights.cli.demo.command import demo

__all__ = ["demo"]
