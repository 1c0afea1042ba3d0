"""Stage 3, learning: examples become batches, batches an adapter, an adapter a student with a card.

Nothing is imported here; `train_student` is in `ownweights.student.train`, `pretrain` in
`ownweights.student.base`, so that torch is loaded only by those who train.
"""
