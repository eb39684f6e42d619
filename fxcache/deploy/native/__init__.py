"""Native code beside an artifact: its files, its checks, and its calls."""
