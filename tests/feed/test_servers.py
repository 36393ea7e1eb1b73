"""`odinws.feed.servers`: each server in its turn, and what a cluster says of itself is remembered."""

from __future__ import annotations

from urllib.parse import urlparse

from odinws.feed.servers import Server, Servers
from odinws.shared.recent import CLUSTER_BYTES, RingBuffer


def turns(servers: Servers, count: int) -> list[str]:
    """The URLs of the next turns, in the order of the alphabet."""
    return sorted(servers.next().url for _ in range(count))


def test_each_in_its_turn() -> None:
    """And from the beginning again."""
    urls = ["nats://a:1", "nats://b:1", "nats://c:1"]
    servers = Servers(urls)
    for _ in range(3):
        assert turns(servers, 3) == urls


def test_what_is_learned_is_remembered() -> None:
    """With the credentials of the server that said it; what that says later replaces it."""
    servers = Servers(["nats://me:secret@a:1"])
    over = servers.next()
    servers.learn([urlparse("nats://a:1"), urlparse("nats://b:2"), urlparse("nats://[::1]:3")], over)
    assert turns(servers, 3) == ["nats://me:secret@[::1]:3", "nats://me:secret@a:1", "nats://me:secret@b:2"]
    servers.learn([], over)
    assert len(set(turns(servers, 3))) == 3
    servers.learn([urlparse("nats://c:4")], over)
    assert turns(servers, 2) == ["nats://me:secret@a:1", "nats://me:secret@c:4"]


def test_workers_that_start_later_know_it_too() -> None:
    """The size of the memory bounds how many."""
    cluster = RingBuffer(1, CLUSTER_BYTES)
    first = Servers(["nats://a:1"], cluster)
    first.learn([urlparse(f"nats://b:{port}") for port in range(1, 3000)], first.next())
    later = Servers(["nats://a:1"], cluster)
    assert turns(later, 3) == ["nats://a:1", "nats://b:1", "nats://b:2"]
    assert len(set(turns(later, 3000))) < CLUSTER_BYTES / len('["nats://b:1",null]')


def test_certificates_have_names() -> None:
    """A server that is known by its address shows the certificate of the name that led to it."""
    servers = Servers(["tls://cluster.example:4222"])
    over = servers.next()
    servers.learn([urlparse("tls://10.0.0.7:4222"), urlparse("tls://other.example:4222")], over)
    found = {servers.next() for _ in range(3)}
    assert Server("tls://10.0.0.7:4222", "cluster.example") in found
    assert Server("tls://other.example:4222") in found
