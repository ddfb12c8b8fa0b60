"""Other people's ways to search, each written as its own documentation teaches it, and ours; all do the same work.

Each file is a program that takes one `Job` file: the same configurations of CustomNet in the same order, the same
images in the same split, the same fresh weights. What documentation leaves open is decided in the peer's favour, and
its file says how. `plain.py` is the loop that PyTorch's tutorials teach, `expert.py` one of an expert.
"""
