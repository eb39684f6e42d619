"""Messages about the progress, with the number of each run and how many there are."""

from collections.abc import Callable


class Messages:
    """Counts the runs of a stage.

    Args:
        say: Called with each message.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._stage, self._done, self._total = "run", 0, 0

    def begin(self, stage: str, total: int) -> None:
        """Begin a stage of ``total`` runs."""
        self._stage, self._done, self._total = stage, 0, total

    def done(self, text: str) -> None:
        """Say what a run of the stage gave."""
        self._done += 1
        place = f"{self._stage} {self._done} of {max(self._done, self._total)}"
        self.say(f"{place}: {text}" if self._total else text)
