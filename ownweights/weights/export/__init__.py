"""Students and bases in the formats of other engines: PEFT folders, GGUF files.

In: a model or an adapter in the hub's names. Out: files, and before they are written a list of what
their reader could not load. Import from the modules.
"""
