"""Codecs: they store cached values and read them back. One file each."""
