"""Every command's help has an example, and the example is a command that exists with the flags that it takes."""

import re
import shlex

import pytest

import run


def walk(place, path=()):
    """The words that lead to every command and group of commands; none for training."""
    yield path
    for name in place:
        if not name.startswith("-"):
            yield from walk(place[name], (*path, name))


COMMANDS = list(walk(run.app))


def test_the_walk_finds_the_commands():
    assert {
        (),
        ("list",),
        ("data",),
        ("data", "verify"),
        ("runs",),
        ("runs", "clean-cache"),
        ("study",),
        ("predict",),
        ("page",),
    } <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_flag_is_shown_in_the_help_of_its_command(path, command):
    place = run.app
    for name in path:
        place = place[name]
    shown = command(*path, "--help")[1]
    for argument in place.assemble_argument_collection() if place.default_command else ():
        name = argument.names[0]
        if argument.parameter.name == ("*",):  # a class of flags
            continue
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", shown), name
        assert argument.parameter.help, f"{name} has no text"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_flag_has_a_negative_that_only_repeats_the_default(path):
    place = run.app
    for name in path:
        place = place[name]
    arguments = place.assemble_argument_collection() if place.default_command else ()
    names = [name for argument in arguments for name in argument.names]
    assert not [name for name in names if re.match("--(no|empty)-", name)]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_commands_help_has_an_example_that_can_be_typed(path, command):
    code, shown, _ = command(*path, "--help")
    assert code == 0
    examples = re.findall(r"Example:\s+(?:source <\()?python run\.py\s*([^)]*?)\)?(?:\n\s*\n|$)", shown)
    assert examples, f"the help of {' '.join(path) or 'run.py'} has no example"
    for example in examples:
        words = shlex.split(example)
        assert tuple(words[: len(path)]) == path, example
        run.app.parse_args(
            words, exit_on_error=False, print_error=False
        )  # raises for a flag or a word that is not taken
