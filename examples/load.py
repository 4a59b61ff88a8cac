"""Send many predictions at once with the asynchronous client, and print how many a second are answered.

    python examples/load.py MODEL IMAGE [REQUESTS] [AT_ONCE]

A service that has too much to do refuses a request (503) and says when to come again. The service is at ACCRETE_URL;
ACCRETE_API_KEY is its key, if it asks for one.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import accrete


async def predict(client: accrete.AsyncClient, model: str, image: bytes, at_once: asyncio.Semaphore) -> float:
    """Seconds from the first try to the answer."""
    async with at_once:
        begun = time.perf_counter()
        while True:
            try:
                await client.predict(model, [image], top_k=1)
                return time.perf_counter() - begun
            except accrete.Unavailable as refused:
                await asyncio.sleep(refused.extra.get("retry_after", 1))


async def main(model: str, image: bytes, requests: int, at_once: int) -> None:
    """Send them, never more than ``at_once`` at a time."""
    url = os.environ.get("ACCRETE_URL", "http://127.0.0.1:8000")
    async with accrete.AsyncClient(url, key=os.environ.get("ACCRETE_API_KEY")) as client:
        bound, begun = asyncio.Semaphore(at_once), time.perf_counter()
        seconds = sorted(await asyncio.gather(*(predict(client, model, image, bound) for _ in range(requests))))
        rate = requests / (time.perf_counter() - begun)
    median, slow = seconds[requests // 2], seconds[requests * 99 // 100]
    print(f"{requests} answers, {rate:.0f} a second; median {1000 * median:.1f} ms, 99 % within {1000 * slow:.1f} ms")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/load.py MODEL IMAGE [REQUESTS] [AT_ONCE]")
    numbers = [int(word) for word in sys.argv[3:]]
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), *[*numbers, *(500, 32)[len(numbers) :]]))
