"""Optional features of the engine. One file each; ``features.py`` puts them in order."""
