"""Finds the attributes in which a model keeps tensors between calls, which then count as inputs."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from itertools import chain

from torch import nn

from fxcache._torch import version_of
from fxcache.call import Call
from fxcache.capture.holders import holders, leads_outside
from fxcache.contents import UNCHANGEABLE
from fxcache.effect import Effect, Place
from fxcache.errors import CaptureError
from fxcache.kept import form_of, part_at, with_kept
from fxcache.objects import Walk, tensor_indices
from fxcache.program import Program
from fxcache.runtime.changes import Changes
from fxcache.runtime.content import IdentityKey
from fxcache.runtime.structure import NOT_SETTINGS, is_callable_setting

MAX_STATES = 4
MAX_KINDS = 256


class KeptTensors:
    """The attributes that some calls fill with tensors and that others only read.

    The original runs the calls that fill them. For all others the tensors are inputs of the graph,
    so that one capture serves every run. What the attributes hold is part of the key of a call. So
    are flags and constants that calls set beside them, in attributes of their own.

    A list that grows with each call would need a capture each time. If calls of one kind fill
    attributes in more than ``MAX_STATES`` states, these are inputs no longer.

    Attributes:
        places: The attributes, in the order in which they were found.
    """

    def __init__(self, changes: Changes) -> None:
        """Start without attributes. ``changes`` then notices no changes of those found."""
        self.places: tuple[Place, ...] = ()
        self._changes = changes
        self._given_up: set[Place] = set()
        self._states: defaultdict[Hashable, set[Hashable]] = defaultdict(set)

    def inherit(self, previous: "KeptTensors") -> None:
        """Take over what ``previous`` knows of the same model."""
        self.places, self._given_up = previous.places, previous._given_up

    def added_to(self, call: Call, module: nn.Module) -> Call:
        """Return ``call`` with the attributes as state objects."""
        if not self.places:
            return call
        try:
            return with_kept(call, module, self.places)
        except CaptureError:
            usable = [place for place in self.places if is_usable(call, module, place)]
            self._replace(usable if len(usable) < len(self.places) else ())
            return self.added_to(call, module)

    def learn(self, call: Call, module: nn.Module, effects: tuple[Effect, ...]) -> bool:
        """Note the effects of a call that the original is about to run.

        Returns:
            Whether the attributes are others now, so that such calls have another key.
        """
        before = self.places
        stored, found = {e.place for e in effects if e.stores}, {e.place for e in effects}
        if call.state.key is not None and self._in_too_many_states(call):
            beside = found.intersection(before).difference(stored)
            self._replace(place for place in before if place not in (beside or found))
        else:
            filled = found.difference(e.place for e in effects if not e.fills)
            new = filled.intersection(stored).difference(before, self._given_up)
            if new or call.state.kept:  # flags and constants beside it tell which calls fill it
                counted = {e.place for e in effects if e.counts and not e.stores}
                new = filled.difference(counted, before, self._given_up)
            self._replace((*before, *sorted(self._usable(call, module, new))))
        return self.places != before

    def _usable(self, call: Call, module: nn.Module, new: Iterable[Place]) -> set[Place]:
        """Return those of ``new`` that can be state objects, and all that share objects with them.

        The trace replaces the objects of an attribute, so that all attributes have to be replaced
        that lead to the same ones.
        """
        usable: set[Place] = set()
        for place in new:
            group = with_sharers(module, place)
            if all(is_usable(call, module, one) for one in group):
                usable |= group
            else:
                self._given_up |= group
        return usable.difference(self.places, self._given_up)

    def _in_too_many_states(self, call: Call) -> bool:
        """Return whether such calls had effects in too many states. Note this one."""
        if len(self._states) > MAX_KINDS:
            self._states.clear()
        states = self._states[call.state.key]
        states.add((call.state.kept, tuple(map(form_of, call.state.kept_tensors))))
        if len(states) <= MAX_STATES:
            return False
        self._states.clear()
        return True

    def fills(self, effects: Iterable[Effect]) -> bool:
        """Return whether the effects fill such attributes and nothing else."""
        return all(e.fills and e.place in self.places for e in effects)

    def _replace(self, places: Iterable[Place]) -> None:
        """Let these attributes be inputs, and the others settings that graphs depend on."""
        before, self.places = self.places, tuple(places)
        if before != self.places:
            self._given_up.update(set(before).difference(self.places))
            self._changes.ignore(self.places, instead_of=before)


def is_usable(call: Call, module: nn.Module, place: Place) -> bool:
    """Return whether an attribute can be a state object."""
    value = place.owner(module).get(place.name)
    if place.name in NOT_SETTINGS or is_callable_setting(value):
        return False  # it is part of the hooks
    if leads_outside(value):
        return False  # a trace replaces the objects in it, and no others
    try:
        with_kept(call, module, (place,))
    except CaptureError:
        return False
    return True


def with_sharers(module: nn.Module, place: Place) -> set[Place]:
    """Return an attribute, and those that lead to the same objects."""
    group, new = set[Place](), {place}
    while new:
        group |= new
        walk = Walk([])
        with suppress(CaptureError):
            for one in sorted(group):
                part_at(module, one, walk)
        changeable = [c for c in walk.containers if not isinstance(c, UNCHANGEABLE)]
        new = set(holders(module, changeable)) - group
    return group


def kept_state(call: Call, program: Program) -> list[Hashable]:
    """Return the state of the tensors that the model keeps and that ``program`` only reads."""
    change, kept = program.state, set(map(id, call.state.kept_tensors))
    changed = change.kept if change else {}
    written = change.written if change else ()
    indices = (tensor_indices(part) for place, part in call.state.kept if place not in changed)
    read = (call.tensors[i] for i in chain.from_iterable(indices) if i not in written)
    return [(IdentityKey(t), version_of(t)) for t in read if id(t) in kept]
