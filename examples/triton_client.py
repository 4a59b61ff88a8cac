"""Classify image files with Triton's own client, over the Open Inference Protocol.

    pip install 'tritonclient[http]'
    python examples/triton_client.py MODEL IMAGE...

The service is at ACCRETE_URL; ACCRETE_API_KEY is its key, if it asks for one.
"""

import os
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton


def main(model: str, files: list[Path]) -> None:
    """Send the files as they are; the service decodes them."""
    url = os.environ.get("ACCRETE_URL", "http://127.0.0.1:8000")
    key = os.environ.get("ACCRETE_API_KEY")
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    images = np.array([file.read_bytes() for file in files], dtype=np.object_)
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(images)
    # The classification extension: the best two classes as "probability:index:label".
    wanted = triton.InferRequestedOutput("probabilities", class_count=2)
    headers = {"Authorization": f"Bearer {key}"} if key else None
    answer = client.infer(model, [tensor], outputs=[wanted], headers=headers)
    for file, classes in zip(files, answer.as_numpy("probabilities"), strict=True):
        print(file.name, *(entry.decode() for entry in classes))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/triton_client.py MODEL IMAGE...")
    main(sys.argv[1], [Path(name) for name in sys.argv[2:]])
