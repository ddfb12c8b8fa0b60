"""The networks, one a file, and the registry that names them."""

from fmnist_models.networks.registry import NETWORKS, Network, build_network, get_network

__all__ = ["NETWORKS", "Network", "build_network", "get_network"]
