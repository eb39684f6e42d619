"""The passes over the graph of a draft, one file each. ``factory.py`` defines their order."""
