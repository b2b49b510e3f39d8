"""Hypothesis strategies: every packet of MQTT 3.1.1, and ways to cut a stream."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from gatewayd.protocol.mqtt import packets as p

packet_ids = st.integers(1, 65_535)
qos = st.integers(0, 2)
payloads = st.one_of(st.binary(max_size=40), st.integers(100, 20_000).map(lambda size: b"\xa5" * size))
_letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(_letters, max_size=30)
topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=30)
filters = st.one_of(
    topics,
    st.builds(
        lambda levels, tail: "/".join([*levels, tail]), st.lists(topics | st.just("+"), max_size=3), topics
    ),
    topics.map(lambda topic: topic + "/#"),
    st.sampled_from(["#", "+", "+/+", "/", "/#"]),
)
wills = st.builds(p.Will, topics, st.binary(max_size=20), qos, st.booleans())


@st.composite
def connects(draw: st.DrawFn) -> p.Connect:
    username = draw(st.none() | texts)
    return p.Connect(
        client_id := draw(texts),
        draw(st.integers(0, 65_535)),
        not client_id or draw(st.booleans()),
        username,
        draw(st.none() | st.binary(max_size=30)) if username is not None else None,
        draw(st.none() | wills),
    )


@st.composite
def publishes(draw: st.DrawFn) -> p.Publish:
    level = draw(qos)
    return p.Publish(
        draw(topics),
        draw(payloads),
        level,
        draw(packet_ids) if level else 0,
        bool(level) and draw(st.booleans()),
        draw(st.booleans()),
    )


connacks = st.builds(p.Connack, st.booleans(), st.just(p.ConnackCode.ACCEPTED)) | st.builds(
    p.Connack, st.just(False), st.sampled_from(list(p.ConnackCode)[1:])
)
subscribes = st.builds(
    p.Subscribe, packet_ids, st.lists(st.tuples(filters, qos), min_size=1, max_size=4).map(tuple)
)
subacks = st.builds(
    p.Suback, packet_ids, st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=4).map(tuple)
)
unsubscribes = st.builds(p.Unsubscribe, packet_ids, st.lists(filters, min_size=1, max_size=4).map(tuple))
packets: st.SearchStrategy[p.Packet] = st.one_of(
    connects(),
    connacks,
    publishes(),
    *(st.builds(kind, packet_ids) for kind in (p.Puback, p.Pubrec, p.Pubrel, p.Pubcomp, p.Unsuback)),
    subscribes,
    subacks,
    unsubscribes,
    st.sampled_from([p.Pingreq(), p.Pingresp(), p.Disconnect()]),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places, each taken round the length."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]
