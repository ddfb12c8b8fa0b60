"""What a search is asked for: a configuration read and checked as a whole, and the space of its hyperparameters."""
