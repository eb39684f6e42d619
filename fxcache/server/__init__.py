"""Serves pictures over HTTP, with Ray Serve: ``fxcache serve``."""

from fxcache.server.config import ServerConfig

__all__ = ["ServerConfig"]
