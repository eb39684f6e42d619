"""The names in the manifest of native code."""

NATIVE_FORMAT = 1
PACKAGE = "graphs.pt2"
NATIVE_FIELDS = (*("fxcache_native", "artifact", "target", "graphs", "programs", "runs", "files"),)
GRAPH = ("program", "digest", "inputs", "outputs", "weights")
OUTPUT = ("kind", "number")
WEIGHT = ("name", "dtype", "shape", "order")
RUN = ("program", "steps")
