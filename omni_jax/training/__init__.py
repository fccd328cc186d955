"""Training: stages, data, losses and the one loop that runs them."""
