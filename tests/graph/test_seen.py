"""``Seen``: any exchange in the dicts is seen, by the compiled module and without it."""

from __future__ import annotations

import pytest

from pyops import backends
from pyops.graph import guards, seen
from pyops.graph.guards import Guard, Watch
from pyops.graph.seen import Seen


@pytest.fixture(params=["compiled", "plain"])
def either(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(seen, "_C", None)
    elif not backends.compiled():
        pytest.skip("no compiled module")


@pytest.mark.usefixtures("either")
def test_exchanges_are_seen():
    value, mapping = object(), {}
    mapping.update(a=value, b=1, n=None)
    noted = Seen()
    assert noted.note(mapping, "a") is value
    assert noted.note(mapping, "c") is None
    assert noted.note(mapping, "n") is None
    noted.note_size(mapping)
    assert noted.same()
    for change, back in (
        (lambda: mapping.update(a=object()), lambda: mapping.update(a=value)),
        (lambda: mapping.pop("a"), lambda: mapping.update(a=value)),
        (lambda: mapping.update(c=None), lambda: mapping.pop("c")),
        (lambda: mapping.pop("n"), lambda: mapping.update(n=None)),
        (lambda: mapping.update(d=2), lambda: mapping.pop("d")),
    ):
        change()
        assert not noted.same()
        back()
        assert noted.same()
    mapping["b"] = 2  # nobody noted it
    assert noted.same()
    assert Seen().same()


@pytest.mark.skipif(not backends.compiled(), reason="no compiled module")
def test_bad_lists_are_refused():
    same_entries, same_sizes = backends._C.same_entries, backends._C.same_sizes
    with pytest.raises(ValueError, match="same_entries: the lists must have one length"):
        same_entries([{}], ["a"], [], None)
    with pytest.raises(TypeError, match="same_entries: dicts must hold dicts alone"):
        same_entries([[]], ["a"], [1], None)
    with pytest.raises(TypeError, match="unhashable"):
        same_entries([{}], [[]], [1], None)
    with pytest.raises(ValueError, match="same_sizes: the lists must have one length"):
        same_sizes([{}], [])
    with pytest.raises(TypeError, match="same_sizes: dicts must hold dicts alone"):
        same_sizes([1], [1])
    with pytest.raises(TypeError, match="integer"):
        same_sizes([{}], ["a"])


class Holder:
    pass


def test_a_watch_looks_closely_again_where_something_was_exchanged(monkeypatch):
    holder, looks = Holder(), []
    holder.size = 100_000
    watch = Watch([Guard(holder, "__dict__", "size", 100_000)])
    monkeypatch.setattr(
        watch, "_each_holds", lambda: looks.append(1) or type(watch)._each_holds(watch)
    )
    assert watch.holds()
    assert watch.holds()
    assert len(looks) == 1
    holder.size = int("100000")  # equal, but another object
    assert watch.holds()
    assert watch.holds()
    assert len(looks) == 2
    holder.size = 7
    assert not watch.holds()
    assert not watch.holds()
    holder.size = 100_000
    for _ in range(3 * Watch._MOST_SIGHTINGS):
        holder.size = int("100000")
        assert watch.holds()
    assert guards.Watch([]).holds()
