"""Steps compiled by Inductor on the CPU, with and without fxcache: ``python -m bench.compiled``."""
