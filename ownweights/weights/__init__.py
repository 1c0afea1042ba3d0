"""Files of numbers: checkpoints, adapters, bases and students, read strictly and written portably.

Import from the modules: `base` is free of torch, the others load it.
"""
