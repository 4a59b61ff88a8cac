"""Teach a model the classes of a folder, one subfolder for each class, and print which classes it knows worst.

    python examples/own_folder.py FOLDER MODEL

The first call makes the model. A later call with a folder of other classes teaches it those, too. The service is at
ACCRETE_URL; ACCRETE_API_KEY is its key, if it asks for one.
"""

import os
import sys
from pathlib import Path

import accrete


def main(folder: Path, model: str) -> None:
    """Teach the folder and look at the result."""
    url = os.environ.get("ACCRETE_URL", "http://127.0.0.1:8000")
    with accrete.Client(url, key=os.environ.get("ACCRETE_API_KEY")) as client:
        if model not in {known["name"] for known in client.models()}:
            client.create_model(model, image_size=32)
        batch = client.create_batch(model, folder)
        increment = client.wait(client.start_increment(model, batch_id=batch["id"])["id"])
        for reject in client.rejects(batch["id"]):
            print(f"left out: {reject['file']}: {reject['reason']}")
        number = accrete.succeeded(increment)["version"]
        assert number is not None
        print(f"version {number} {'is in service' if increment['promoted'] else 'waits for promotion'}")
        classes = client.version_metrics(model, number)["tag"]["per_class"]
        measured_classes = [item for item in classes.items() if item[1]["support"]]
        for label, measured in sorted(measured_classes, key=lambda item: item[1]["recall"]):
            print(f"{label:20} {measured['recall']:.0%} of {measured['support']} evaluation images")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/own_folder.py FOLDER MODEL")
    main(Path(sys.argv[1]), sys.argv[2])
