import asyncio
import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from roost_runtimes.frames import HEADER, MAX_META_BYTES, FrameProtocol

Frame = tuple[int, int, int, bytes, bytes]


class Recorder(FrameProtocol):
    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.lost = asyncio.get_running_loop().create_future()

    def frame_received(self, kind, status, frame_id, meta, body) -> None:
        self.frames.append((kind, status, frame_id, bytes(meta), bytes(body)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def connected() -> tuple[Recorder, Recorder]:
    loop = asyncio.get_running_loop()
    ends = []
    for end in socket.socketpair():
        end.setblocking(False)
        ends.append((await loop.create_unix_connection(Recorder, sock=end))[1])
    return ends[0], ends[1]


frames = st.lists(
    st.tuples(
        st.integers(1, 8),
        st.integers(0, 65535),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=200),
        st.one_of(
            st.binary(max_size=300),
            st.builds(lambda size, fill: bytes([fill]) * size, st.integers(100_000, 700_000), st.integers(0, 255)),
        ),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(frames)
def test_what_is_sent_arrives_whole_and_in_order(sent: list[Frame]) -> None:
    async def run() -> None:
        near, far = await connected()
        for kind, status, frame_id, meta, body in sent:
            near.send_frame(kind, frame_id, meta, [body[:50], body[50:]] if body else (), status)
        near.flush()
        assert near.transport is not None
        near.transport.close()
        await far.lost
        assert far.frames == sent

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(frames, st.data())
def test_where_a_read_ends_does_not_matter(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(HEADER.pack(k, s, i, len(m), len(b)) + m + b for k, s, i, m, b in sent)

    async def run() -> None:
        reader = Recorder()
        position = 0
        while position < len(stream):
            room = reader.get_buffer(-1)
            take = min(len(room), data.draw(st.integers(1, 200_000)), len(stream) - position)
            room[:take] = stream[position : position + take]
            reader.buffer_updated(take)
            position += take
        assert reader.frames == sent

    asyncio.run(run())


async def test_an_absurd_header_ends_the_connection() -> None:
    near, far = await connected()
    assert near.transport is not None
    near.transport.write(HEADER.pack(4, 0, 1, MAX_META_BYTES + 1, 0))
    await far.lost
    assert far.frames == []


async def test_writing_to_a_connection_that_is_gone_is_harmless() -> None:
    near, far = await connected()
    assert far.transport is not None
    far.transport.close()
    await near.lost
    near.send_frame(4, 1, b"{}")
    near.flush()
