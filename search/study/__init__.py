"""What decides: the Optuna study as a search writes it, its sampler, its pruners, and searches in virtual time."""
