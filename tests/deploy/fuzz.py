"""Mutates artifacts at random: ``python -m tests.deploy.fuzz --mutations 10000``.

Each mutation changes a manifest, a graph or a file of weights, with the right hash. Loading the
folder must work, or raise an error of fxcache.
"""

import argparse
import copy
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fxcache
from tests.deploy.tampering import replace
from tests.deploy.test_round_trip import denoised
from tests.plain import dit

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        7,
        2**31,
        2**63,
        -(2**70),
        0.5,
        1e308,
        "",
        "x",
        "s0",
        "..",
        "\0",
    ),
    *(
        [],
        {},
        [[]],
        [0] * 9,
        {"node": 0},
        {"node": -1},
        {"dtype": "float64"},
        {"tuple": []},
        "leaf",
    ),
    *({"device": "model"}, {"float": "nan"}, "aten.add.Tensor", "aten.view.default", "a" * 10**5),
)
FOLDER = "artifact"


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in ``data`` with each of its keys or indices."""
    keys = data.keys() if isinstance(data, dict) else range(len(data))
    for key in list(keys):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from places(data[key])


def mutated(data: Any, rng: random.Random) -> Any:
    """Return a copy of ``data`` with one to three changes."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        found = list(places(data))
        if not found:
            return data
        container, key = rng.choice(found)
        action = rng.randrange(4)
        if action == 0:
            container[key] = copy.deepcopy(rng.choice(VALUES))
        elif action == 1:
            del container[key]
        elif action == 2:
            other, place = rng.choice(found)
            container[key] = copy.deepcopy(other[place]) if place_exists(other, place) else None
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        else:
            container[f"{key}_"] = copy.deepcopy(container[key])
    return data


def place_exists(container: Any, key: Any) -> bool:
    """Return whether an earlier change left this place."""
    return key in container if isinstance(container, dict) else key < len(container)


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """Return ``content`` with bytes changed, removed or added."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(min(len(data), 4096))  # the header is the part that is parsed
        data[at] = rng.randrange(256)
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


class Fuzzer:
    """Mutates one exported model.

    Attributes:
        outcomes: How many mutations had each outcome.
        failures: The mutations that raised another error than one of fxcache.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = random.Random(seed)
        model = fxcache.optimize(dit(2), fxcache.Uniform(3))
        denoised(model)
        self._folder = fxcache.export(model, folder / FOLDER)
        self._files = {
            str(path.relative_to(self._folder)): path.read_bytes()
            for path in sorted(self._folder.rglob("*"))
            if path.is_file()
        }
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self, count: int) -> None:
        """Load ``count`` mutated artifacts."""
        for _ in range(count):
            name = self._rng.choice(sorted(self._files))
            content = self._files[name]
            if name.endswith(".json") and self._rng.random() < 0.9:
                new = json.dumps(mutated(json.loads(content), self._rng)).encode()
            else:
                new = bytes_changed(content, self._rng)
            self._write(name, new)
            self.outcomes[f"{name.partition('/')[0]}: {self._outcome(new)}"] += 1
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        if name == "manifest.json":
            (self._folder / name).write_bytes(content)
        else:
            replace(self._folder, name, content)

    def _outcome(self, content: bytes) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fxcache.load(self._folder)
        except fxcache.FxcacheError as error:
            return type(error).__name__
        except Exception as error:  # the subject of the test
            self.failures.append(f"{type(error).__name__}: {str(error)[:200]}\n{content[:200]!r}")
            return "another error"
        return "loaded"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), arguments.seed)
        fuzzer.run(arguments.mutations)
    print(json.dumps(fuzzer.outcomes, indent=2), f"in {time.perf_counter() - started:.0f} s")
    print(*fuzzer.failures[:10], sep="\n")
    return bool(fuzzer.failures)


if __name__ == "__main__":
    sys.exit(main())
