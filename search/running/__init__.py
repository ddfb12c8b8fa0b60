"""Trials on a cluster: Ray Tune schedules them, and workers train them."""
