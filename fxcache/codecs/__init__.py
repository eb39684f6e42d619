"""Codecs: how a cached value is stored and read back. One file each."""
