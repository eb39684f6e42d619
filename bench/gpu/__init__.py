"""Everything that needs a GPU, in one command: ``python -m bench.gpu --out FOLDER``.

``docs/gpu.md`` says how to run it and what it writes.
"""
