"""Modules that bring their programs along, so that nothing is traced."""

from abc import ABC, abstractmethod

from fxcache.call import Call
from fxcache.program import Program


class ProvidesPrograms(ABC):
    """A base of modules that have a program for each kind of call that they serve."""

    @abstractmethod
    def program_for(self, call: Call) -> Program:
        """Return the program for ``call``.

        Raises:
            FxcacheError: There is none for this kind of call.
        """
