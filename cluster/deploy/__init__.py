"""Fleets: from one small settings file, what `ray up`, KubeRay and `docker build` are given."""

from __future__ import annotations

from cluster.deploy.commands import next_commands
from cluster.deploy.render import render
from cluster.deploy.settings import Settings, example_settings, read_settings

__all__ = ["Settings", "example_settings", "next_commands", "read_settings", "render"]
