"""Supervisors of one job that meet: who leads, what is handed on, what a stranger gets, how silence is noticed."""

import http.client
import socket
import time
from collections.abc import Callable

import msgspec
import pytest

from daemons.errors import MusterError
from daemons.supervisor.meeting import LOST_SECONDS, Follower, Leader, Order, Place, aged, meet, place
from daemons.supervisor.record import Verdict
from daemons.supervisor.snapshot import HostSample, RankLook, RankSample

TOKEN = "0123456789abcdef"


def free_place() -> Place:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return place(f"127.0.0.1:{bound.getsockname()[1]}", TOKEN)


def eventually(true: Callable[[], bool]) -> bool:
    for _ in range(500):
        if true():
            return True
        time.sleep(0.02)
    return False


def sample(host: str, rank: int) -> HostSample:
    return HostSample(host=host, ranks=[RankSample(rank=rank, pid=rank + 100, step=7, step_age=1.0)])


def test_the_first_to_have_the_address_leads_and_sees_the_others_ranks() -> None:
    where = free_place()
    leader = meet(where, "a", dict)
    follower = meet(where, "b", lambda: {1: RankLook(rank=1, host="b")})
    assert isinstance(leader, Leader)
    assert isinstance(follower, Follower)
    follower.say(0, sample("b", 1))
    assert eventually(lambda: bool(leader.samples(0)))
    assert [rank.rank for host in leader.samples(0) for rank in host.ranks] == [1]
    assert leader.samples(1) == []
    number = leader.ask()
    follower.say(0, sample("b", 1))
    assert eventually(lambda: leader.answers(number)[1])
    assert leader.answers(number)[0] == {1: RankLook(rank=1, host="b")}
    follower.close(0)
    leader.close()


def test_orders_reach_the_followers_and_the_end_is_no_loss() -> None:
    where = free_place()
    leader = Leader(where)
    follower = Follower(where, "b", dict)
    verdict = Verdict(kind="stuck", cause="data.loader", ranks=[3], host="a")
    leader.order = Order(verdict=verdict, end=True)
    follower.say(0, sample("b", 1))
    assert eventually(lambda: follower.order.end)
    assert follower.order.verdict == verdict
    follower.close(0)
    leader.close()
    assert leader.lost() == {}


def test_a_stranger_without_the_token_is_refused() -> None:
    where = free_place()
    leader = Leader(where)
    stranger = Follower(msgspec.structs.replace(where, token="x" * 16), "evil", dict)
    stranger.say(0, sample("evil", 0))
    assert eventually(lambda: "401" in stranger.trouble)
    assert leader.samples(0) == []
    channel = http.client.HTTPConnection(*where.endpoint, timeout=5)
    channel.request("POST", "/report", b"{", {"authorization": f"Bearer {TOKEN}"})
    assert channel.getresponse().status == 400
    channel.close()
    stranger.close(0)
    leader.close()


def test_silence_is_noticed_on_both_sides() -> None:
    now = [100.0]
    where = free_place()
    leader = Leader(where, lambda: now[0])
    follower = Follower(where, "b", dict, lambda: now[0])
    follower.say(0, sample("b", 1))
    assert eventually(lambda: bool(leader.samples(0)))
    assert leader.lost() == {}
    now[0] += LOST_SECONDS + 1
    assert leader.lost() == {"b": LOST_SECONDS + 1}
    assert follower.silent > LOST_SECONDS
    follower.close(0)
    leader.close()


def test_a_sample_grows_older_on_its_way() -> None:
    assert aged(sample("b", 1), 2.5).ranks[0].step_age == 3.5


WRONG = [("host", TOKEN), (":7070", TOKEN), ("host:port", TOKEN), ("h:1", "short")]


@pytest.mark.parametrize(("address", "token"), WRONG)
def test_a_place_that_cannot_be_is_refused_with_the_remedy(address: str, token: str) -> None:
    with pytest.raises(MusterError, match=r"^run: --leader"):
        place(address, token)
