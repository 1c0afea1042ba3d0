"""What a student may do wrong that no target shows: repeat private data, answer what it should not.

measure   all of it, for the answers of a run
section   what was found, as values of the verdict and lines of its report
personal  finds personal data and secrets in text
privacy   what an answer holds of training's private data that the request did not
canary    the attempt to get out the made-up secrets that dataset/canary.py planted
safety    refusals beside the teacher's
"""
