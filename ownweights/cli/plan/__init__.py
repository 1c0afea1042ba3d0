"""What a training would be, before it runs: the pairs that it learns from, shown, estimated, and
refused where it cannot fit."""
