"""What can be known of a training before it runs: what it reads, what it takes, whether it fits.

preview     rows, settings and the template's behaviour, shown
calibrate   a few real steps of a shape, measured in a process of their own
estimate    memory and time of a run, from what was measured
"""
