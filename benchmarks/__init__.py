"""What `make bench` measures. Not installed with the package."""
