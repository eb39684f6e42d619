"""The optional features of the engine, one file each. ``features.py`` defines their order."""
