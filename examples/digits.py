"""Grow a classifier of handwritten digits two classes at a time, and print what each version forgot.

    python examples/digits.py [MODEL]

The digits are those that scikit-learn ships. The service is at ACCRETE_URL; ACCRETE_API_KEY is its key, if it asks for
one.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from sklearn.datasets import load_digits

import accrete

STEPS = ((0, 1), (2, 3), (4, 5))


def write_digits(folder: Path, digits: tuple[int, ...]) -> Path:
    """Save the images of some digits, in a folder for each; values 0 … 16 become 0 … 255."""
    known = load_digits()
    for number, (pixels, digit) in enumerate(zip(known.images, known.target, strict=True)):
        if digit in digits:
            path = folder / str(digit) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * (255 / 16)).round().astype("uint8")).save(path)
    return folder


def main(model: str) -> None:
    """Teach the digits step by step."""
    url = os.environ.get("ACCRETE_URL", "http://127.0.0.1:8000")
    with TemporaryDirectory() as folder, accrete.Client(url, key=os.environ.get("ACCRETE_API_KEY")) as client:
        client.create_model(model, image_size=16, channels=1, recipe={"preset": "quick", "epochs": 3})
        for digits in STEPS:
            batch = write_digits(Path(folder) / str(digits[0]), digits)
            increment = client.wait(client.start_increment(model, batch)["id"])
            number = accrete.succeeded(increment)["version"]
            assert number is not None
            metrics = client.version_metrics(model, number)["tag"]
            accuracy, forgetting = metrics["average_accuracy"], metrics["forgetting"] or 0
            print(f"version {number}: {accuracy:.1%} accurate, {forgetting:.1%} forgotten")
        picture = next((Path(folder) / "2" / "3").iterdir())
        best = client.predict(model, [picture], top_k=1)["predictions"][0][0]
        print(f"a 3 is taken for a {best['label']} with probability {best['probability']:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["example-digits"])
