"""What a student may do wrong that no target shows: repeat private data, answer what it should not.

personal  finds personal data and secrets in text
privacy   what an answer holds of training's private data that the request did not
canary    made-up secrets planted in training, and the attempt to get them out
safety    refusals beside the teacher's
"""
