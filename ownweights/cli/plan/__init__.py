"""What a training would be, before it runs: shown, estimated, and refused where it cannot fit."""
