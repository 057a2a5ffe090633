"""The kernel of the trans step on tensors, for devices of torch."""
