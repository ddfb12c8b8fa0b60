"""Searching hyperparameters: what to try, running it on a Ray cluster, and what came out.

``config`` and ``space`` say what to try, ``runner`` runs it, ``results`` reads what came out without Ray or torch.
Import what you need from those modules: this one is empty so that reading results stays fast.
"""
