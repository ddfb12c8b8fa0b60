"""What a person, a terminal or Python is shown of experiments. Neither Ray nor torch."""
