"""Passes over the graph of a draft. One file each; ``factory.py`` puts them in order."""
