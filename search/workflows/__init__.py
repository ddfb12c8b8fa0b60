"""What a command does from its start to its end: search, confirm, cross-validate, replay, test the winner."""
