"""Images, networks, freezing, training, metrics and figures of Fashion-MNIST classifiers; knows nothing of Ray.

``data`` loads images, ``networks`` builds models, ``training`` trains one epoch after the other, ``metrics`` judges
predictions, ``saved_model`` writes and reads a finished model. Import what you need from those modules: this one is
empty so that reading results does not load torch.
"""
