"""The exceptions: their tree, what they carry, and that they can be handed to another process."""

import copy
import inspect
import pickle
import re

import pytest

from upcall import errors
from upcall.errors import FotaV2ResultException, ThingSpaceError, UpcallError

CLASSES = [getattr(errors, name) for name in errors.__all__]


def options(cls):
    """Give every keyword option of an exception a value of its own."""
    parameters = inspect.signature(cls).parameters.values()
    return {
        parameter.name: 7 if isinstance(parameter.default, (int, float)) else f"some {parameter.name}"
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def tree_in_the_docstring():
    """Read the drawing: each class with its parent."""
    parents, drawn = {}, {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)(\w+)", line):
            depth = len(found[1]) // 4
            parents[depth] = found[2]
            drawn[found[2]] = parents.get(depth - 1) if depth else None
    return drawn


def test_tree_in_the_docstring_is_the_tree():
    """The drawing that a reader trusts shows each class under its base, in the order of the code, and no other."""
    defined = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    ]
    expected = {cls.__name__: None if cls is UpcallError else cls.__base__.__name__ for cls in defined}
    assert list(tree_in_the_docstring().items()) == list(expected.items())


def test_every_exception_is_exported():
    """`errors.__all__` is sorted and names every exception."""
    assert errors.__all__ == sorted(tree_in_the_docstring())


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_exceptions_survive_pickle_and_copy(cls, clone):
    """An exception that crosses to another process arrives with its type and all that it carries."""
    error = cls("What happened.", **options(cls))
    error.add_note("a note")
    twin = clone(error)
    assert type(twin) is cls
    assert twin.__dict__ == error.__dict__
    assert (str(twin), twin.args) == (str(error), error.args)
    for name, value in options(cls).items():
        assert getattr(twin, name) == value


@pytest.mark.parametrize("cls", CLASSES)
def test_every_exception_has_an_exit_code(cls):
    """A command that ends with any of these exits with a documented code."""
    assert cls.exit_code in {1, 2, 3, 4}
    assert not issubclass(cls, ThingSpaceError) or cls.exit_code == 4


@pytest.mark.parametrize("cls", CLASSES)
def test_text_is_the_message_and_the_hint(cls):
    """The text says what happened and then what to do, and nothing of what the provider sent."""
    assert str(cls("It failed.", hint="Try again.")) == "It failed. Try again."
    assert str(cls("It failed.")) == "It failed."
    assert str(cls("It failed.", **options(cls))) == "It failed. some hint"


def test_a_refused_registration_is_told_by_its_code():
    """The seed's exception carries the provider's code and message under the names that it gives them."""
    error = FotaV2ResultException("refused", status_code=400, error_code="INVALID_PARAMETER", error_message="Bad url")
    assert (error.status_code, error.error_code, error.error_message) == (400, "INVALID_PARAMETER", "Bad url")
