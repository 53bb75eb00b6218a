"""Training: each module fits one kind of model."""
