"""One agent per state directory, and one line when it cannot be had."""

import os
from pathlib import Path

import pytest
from needs import need

from daemons.errors import StateError
from daemons.node.state import StateDirectory, answers_at, directory, reachable


def test_where_it_is() -> None:
    home = {"HOME": "/home/ann"}
    assert directory("/srv/x", {"STATE_DIRECTORY": "/var/lib/y"}, root=True) == Path("/srv/x")
    assert directory("", {"STATE_DIRECTORY": "/var/lib/y:/var/lib/z"}, root=True) == Path("/var/lib/y")
    assert directory("", home, root=True) == Path("/var/lib/muster")
    assert directory("", home, root=False) == Path("/home/ann/.local/state/muster")
    assert directory("", {**home, "XDG_STATE_HOME": "/s"}, root=False) == Path("/s/muster")


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    StateDirectory(tmp_path / "a" / "state").close()
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700


def test_a_second_agent_is_told_who_has_it_and_the_first_is_unharmed(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    with pytest.raises(StateError) as refused:
        StateDirectory(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: another agent uses it (pid {os.getpid()}): stop that one, or set node.state to another directory"
    )
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    first.close()
    StateDirectory(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError) as refused:
        StateDirectory(tmp_path / "file" / "state")
    assert str(refused.value) == (
        f"{tmp_path}/file/state: cannot be written (Not a directory): set node.state to a directory that can"
    )


def test_a_read_only_place_is_one_line() -> None:
    need("root")
    with pytest.raises(StateError, match=r"^/proc/1/muster: cannot be written \("):
        StateDirectory(Path("/proc/1/muster"))


@pytest.mark.parametrize(
    ("said", "listen", "reached"),
    [
        (None, "127.0.0.1:9808", "127.0.0.1:9808"),
        (None, "0.0.0.0:9808", "127.0.0.1:9808"),
        ("127.0.0.1:40123", "127.0.0.1:0", "127.0.0.1:40123"),
        ("[::]:9808", "[::]:9808", "127.0.0.1:9808"),
    ],
)
def test_an_agent_is_reached_where_it_said_it_answers(
    tmp_path: Path, said: str | None, listen: str, reached: str
) -> None:
    if said:
        answers_at(tmp_path, said)
    assert reachable(tmp_path, listen) == reached
