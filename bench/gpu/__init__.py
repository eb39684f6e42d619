"""All measurements that need a GPU, in one command: ``python -m bench.gpu --out FOLDER``.

``docs/gpu.md`` describes how to run it and what it writes.
"""
