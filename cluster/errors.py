"""What a person can put right about clusters and jobs; every message says what, where and what would be valid."""


class ClusterError(Exception):
    """A cluster or a job is not as it was asked for; the command line ends with exit code 2."""


class ClusterGoneError(ClusterError):
    """A cluster that was reached before does not answer any more; the command line ends with exit code 3."""
