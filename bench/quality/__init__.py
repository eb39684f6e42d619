"""What every policy does to the pictures of the bundled models, on one footing.

``python -m bench.quality --help`` measures it; ``classifier`` makes the features that the Fréchet
distance is taken between.
"""
