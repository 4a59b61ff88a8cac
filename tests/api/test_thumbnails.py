"""The cache of thumbnails: bounded in bytes, and the least recently shown goes first."""

from concurrent.futures import ThreadPoolExecutor

from api.views.thumbnails import Thumbnails
from tests.api.worlds import picture

LIMIT = 50_000_000


def test_the_least_recently_shown_goes_first():
    read: list[int] = []

    def ask(cache: Thumbnails, number: int) -> bytes:
        def original() -> bytes:
            read.append(number)
            return picture(number, size=64)

        return cache.of(f"digest {number}", 64, original, max_pixels=LIMIT)

    sizes = [len(ask(Thumbnails(), number)) for number in range(3)]
    cache = Thumbnails(capacity_bytes=sum(sizes) - 1)
    read.clear()
    ask(cache, 0)
    ask(cache, 1)
    ask(cache, 0)
    assert read == [0, 1]
    ask(cache, 2)  # there is no room for all: 1 goes
    ask(cache, 0)
    ask(cache, 2)
    assert read == [0, 1, 2]
    ask(cache, 1)
    assert read == [0, 1, 2, 1]


def test_many_threads_count_each_file_once():
    cache = Thumbnails(capacity_bytes=1 << 20)
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda _: cache.of("a", 32, lambda: picture(1, size=64), max_pixels=LIMIT), range(64)))
    assert len(set(files)) == 1
    assert cache._bytes == len(files[0])
