"""What a search leaves in an experiment's folder, a database or a store, and how it is read. Neither Ray nor torch."""
