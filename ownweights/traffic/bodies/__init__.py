"""Bodies: segments on the local disk and in an object store, and how what went leaves them."""
