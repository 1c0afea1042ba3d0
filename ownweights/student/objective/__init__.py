"""What a student learns: one file an objective, each a loss and the batches that it needs.

    sft         the recorded answers                            cross-entropy
    dpo         which of two answers is better                  preference
    distil      what a local teacher would say at every token   distil
    logprobs    what a rented teacher's top log-probabilities told   logprobs, align
    on-policy   what a local teacher thinks of the student's own answers   on_policy
    text        documents, as in pre-training                   text

The makers of lessons are found by `ownweights.student.lessons`. No loss here holds the scores of
all positions at once: they are made and used a few hundred positions at a time (`chunks`).
"""
