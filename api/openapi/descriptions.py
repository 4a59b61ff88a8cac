"""The meaning of each property and parameter of the HTTP API, with an example: one for each name.

A description that a schema or parameter has already is kept. A key `Schema.property` is for one schema alone.
"""

from collections.abc import Mapping
from typing import Any

from api.openapi.comparison_descriptions import COMPARISONS
from api.openapi.description import CURVES, DIGEST, ID, RANKED, TIME, Description

DESCRIPTIONS: Mapping[str, Description] = {
    # names and numbers
    "id": Description("Identifier, given by the service.", ID),
    "name": Description("Name of a model.", "plants"),
    "model": Description("Name of the model.", "plants"),
    "model_name": Description("Name of the model.", "plants"),
    "model_version": Description("Version that answered.", "3"),
    "version": Description("Number of a version, from 1; null where there is none.", 3),
    "number": Description("Number of a version, from 1.", 3),
    "batch_id": Description("Identifier of a batch.", ID),
    "image_id": Description("Identifier of a stored image.", ID),
    "increment_id": Description("Identifier of an increment.", ID),
    "position": Description("Position of an image in its request, from 0.", 0),
    "kept": Description("Positions, from 0, of the images that are kept.", [0]),
    "prediction_id": Description("Identifier of a prediction's record.", ID),
    "image": Description("Identifier of the stored image.", ID),
    "label": Description("Name of a class.", "rose"),
    "file": Description("Name of a file.", "weights.safetensors"),
    "created_at": Description("When it was made (RFC 3339).", TIME),
    "started_at": Description("When work on it began; null before.", TIME),
    "finished_at": Description("When it ended; null before.", TIME),
    # lists
    "items": Description("This page's entries.", []),
    "next_cursor": Description("Send it as cursor to get the next page; null on the last page.", "MTAw"),
    "limit": Description("Largest number of entries on a page.", 100),
    "cursor": Description("next_cursor of the previous page; leave it out for the first page.", "MTAw"),
    # models
    "network": Description("Architecture of the backbone.", "resnet32"),
    "image_size": Description("Height and width that images are resized to, in pixels.", 32),
    "channels": Description("1 (grey) or 3 (colour).", 3),
    "strategy": Description("What an increment optimises: a name from GET /v1/strategies.", "lwf-bsr"),
    "recipe": Description(
        "Hyper-parameters that differ from the preset's: see recipe_schema of a strategy.", {"epochs": 10}
    ),
    "form.recipe": Description("Hyper-parameters that differ from the preset's, as a JSON object.", '{"epochs": 10}'),
    "parameter.recipe": Description(
        "Hyper-parameters that differ from the preset's, as a JSON object.", '{"epochs": 10}'
    ),
    "memory": Description("Exemplars kept for rehearsal; null: none.", {"per_class": 20}),
    "per_class": Description("Exemplars of each class.", 20),
    "total": Description("Exemplars of all classes together.", 2000),
    "keep_predictions": Description("Of which predictions the images are kept beside the record: all or none.", "none"),
    "retention": Description("Which images are kept: all, exemplars (and evaluation images), or none.", "all"),
    "head": Description("Version that the next increment starts from; null before the first.", 3),
    "VersionOut.head": Description("Whether the next increment starts from it.", True),
    "current": Description("Version in service; null before the first.", 3),
    "VersionOut.current": Description("Whether it is in service.", True),
    "previous": Description("Version that was in service before; null where there is none.", 2),
    "revision": Description("Counts promotions; the ETag of /current is made of it.", 7),
    "CurrentIn.reason": Description("Why, for the record of promotions.", "fewer false alarms on belt 3"),
    "BatchOut.increment_id": Description("Increment that learns from it; null: none yet.", ID),
    "StoredImageOut.split": Description("train or test; null until its batch is ingested.", "train"),
    "ClassChange.label": Description("What the class is called from now on.", "dog rose"),
    "ClassOut.id": Description(
        "The label by which it is held, also in the files of versions; it never changes.", "rose"
    ),
    "ClassOut.task": Description("Task that it was learned with, from 0; null: not learned.", 0),
    "ClassesOut.classes": Description(
        "The classes, with their stored images.",
        [{"label": "rose", "id": "rose", "task": 0, "train": 40, "test": 10, "examples": [ID]}],
    ),
    "examples": Description("Identifiers of some of its images, exemplars of the version in service first.", [ID]),
    "parameter.examples": Description("Images to name for each class.", 4),
    "exemplar_of": Description("Number of a version that keeps them as exemplars.", 3),
    "text": Description("Part of a file name; upper and lower case are the same.", "img_00"),
    "side": Description("Largest height and width, in pixels.", 128),
    **COMPARISONS,
    "change": Description(
        "What was changed; null: nothing, or it is not on record.", {"changed": {"strategy": ["lwf-bsr", "lucir-bsr"]}}
    ),
    "PromotionOut.version": Description("Version that was put into service.", 3),
    "PromotionOut.previous": Description("Version that was in service until then; null: none.", 2),
    "PromotionOut.revision": Description("Number of the promotion: its model's count, from 1.", 7),
    "PromotionOut.key": Description(
        "Name of the key of the person who asked; null: an increment promoted its version, or an earlier release kept "
        "no record.",
        "ops",
    ),
    "PromotionOut.increment_id": Description("Increment that promoted its own version; null: a person did.", ID),
    "PromotionOut.reason": Description("Why, in the words of the person; null: none was given.", "fewer false alarms"),
    "PromotionOut.created_at": Description(
        "When (RFC 3339); null for the last promotion by a release that kept no record.", TIME
    ),
    "classes": Description("Labels, in the order of the logits.", ["rose", "tulip"]),
    "drop": Description("Classes that are dropped.", ["tulip"]),
    "merge": Description("Classes that become one.", [{"labels": ["rose", "dog rose"], "into": "rose"}]),
    "labels": Description("The classes that are merged.", ["rose", "dog rose"]),
    "into": Description("One of them, or a new name.", "rose"),
    "edit": Description("What was changed instead of training; null: nothing, it was trained.", None),
    # batches and images
    "BatchOut.classes": Description(
        "How many images of each class it holds.", [{"label": "rose", "train": 40, "test": 10}]
    ),
    "BatchOut.status": Description(
        "open (takes images), closed (belongs to an increment) or ingested (decoded).", "open"
    ),
    "images": Description("The images.", []),
    "BatchOut.images": Description("How many images it holds.", 50),
    "PredictionIn.images": Description("Image files, each in base64.", ["iVBORw0KGgo…"]),
    "AddedImagesIn.images": Description("Image files, each in base64.", ["iVBORw0KGgo…"]),
    "form.images": Description("Image files.", []),
    "rejects": Description(
        "The first 100 of the bad files, which were left out, and why.",
        [{"file": "rose/7.jpg", "reason": "is no image"}],
    ),
    "reject_count": Description(
        "How many bad files there are; GET /v1/batches/{batch_id}/rejects names all of them.", 1
    ),
    "ignored": Description("Files that were not read as images, by reason.", []),
    "notes": Description("How the archive's layout was read, where that may surprise.", []),
    "files": Description("Names of some of them.", ["README.md"]),
    "VersionOut.files": Description(
        "Files of the version, by name.", {"weights.safetensors": {"sha256": DIGEST, "bytes": 1}}
    ),
    "format": Description("Format of the file.", "onnx"),
    "plot": Description("What to show.", "overview"),
    "count": Description("How many there are.", 3),
    "digest": Description("SHA-256 of the content; null where there is none yet.", DIGEST),
    "digests": Description("SHA-256 of each image file.", [DIGEST]),
    "reference": Description("The caller's own name for the request.", "belt 3, 12:04"),
    "train": Description("Images to learn from.", 40),
    "test": Description("Images to evaluate with.", 10),
    "filename": Description("Name of the file as it was sent.", "7.jpg"),
    "split": Description("train or test; left out, the content decides.", "train"),
    "erased": Description("How many images were erased.", 12),
    "reason": Description("Reason; null if there is none.", "is no image"),
    "data": Description("A zip or tar archive in ImageFolder layout.", "batch.zip"),
    # increments
    "promote": Description("auto (put into service, if its parent still is in service) or manual.", "auto"),
    "known_classes": Description(
        "What to do with classes that the model knows: refuse (409) or rehearse (train on them, too).", "refuse"
    ),
    "IncrementOut.status": Description("queued, running, succeeded, failed or cancelled.", "running"),
    "attempt": Description("Number of attempts so far.", 1),
    "attempts": Description("All attempts.", []),
    "worker": Description("Worker that made the attempt.", "worker@host"),
    "outcome": Description("How the attempt ended; null while it runs.", "succeeded"),
    "parent": Description("Version it started from; null for the first.", 2),
    "promoted": Description("Whether the version went into service; null before there is one.", True),
    "note": Description("Why the version was not promoted; null if it was.", "current is no longer the parent"),
    "notices": Description(
        "Consequences of the settings that are seldom wanted, and how to avoid them.",
        ["'lucir' is made for rehearsal, and this increment shows no image of 'rose': …"],
    ),
    "needs_exemplars": Description("Whether it is made for models that keep exemplars.", False),
    "progress": Description("Progress while it runs; null otherwise.", {"stage": "training", "epoch": 3, "epochs": 10}),
    "error": Description("Why it failed; null if it did not.", "the loss is not finite"),
    "ErrorOut.error": Description("What is wrong, and what to do.", "There is no model 'nobody'."),
    "seconds": Description("Duration of each stage, in seconds.", {"training": 41.5}),
    "stage": Description("Current stage.", "training"),
    "epoch": Description("Epoch under way, from 1.", 3),
    "epochs": Description("Number of epochs.", 10),
    "step": Description("Optimiser steps done in this stage.", 120),
    "steps": Description("Optimiser steps of this stage.", 400),
    "loss": Description("Loss of the latest minibatches.", 0.42),
    "images_per_second": Description("Training speed, in images a second.", 2100.0),
    "eta_seconds": Description("Estimated time until its end, in seconds.", 12.5),
    "last-event-id": Description("Id of the last event received; the stream goes on after it.", 4),
    "idempotency-key": Description(
        "A request that is repeated with the same key is carried out once and gets the same answer.", "monday-batch"
    ),
    # versions and metrics
    "task": Description("The newest task it knows, from 0: its place in tasks.", 1),
    "tasks": Description("Classes by the increment that added them.", [["rose", "tulip"], ["lily"]]),
    "versions": Description("Numbers of versions, oldest first.", [1, 2]),
    "MetadataOut.versions": Description("Versions that can answer.", ["1", "2"]),
    "data_digest": Description("SHA-256 of what it learned from.", DIGEST),
    "code_version": Description("Release of the service that trained it.", "0.1.0"),
    "summary": Description("Headline of the metrics.", {"tag": {"average_accuracy": 0.91, "forgetting": 0.04}}),
    "average_accuracy": Description("Mean accuracy over tasks, 0 … 1; null where nothing was measured.", 0.91),
    "forgetting": Description("Mean loss of accuracy on old tasks, 0 … 1; null where nothing was measured.", 0.04),
    "test_images": Description("Evaluation images of each task; null where they are gone.", [200, 100]),
    "tag": Description("Task-agnostic metrics: the task is not told (docs/metrics.md).", CURVES),
    "taw": Description("Task-aware metrics: the task is told (docs/metrics.md).", CURVES),
    "imbalance": Description("How far new classes outweigh old ones (docs/metrics.md).", {"bias": 0.1}),
    "sha256": Description("SHA-256 of the content.", DIGEST),
    "bytes": Description("Size, in bytes.", 1_900_000),
    "if-match": Description("ETags; the request is carried out only if one of them is current; *: any.", '"7"'),
    "if-none-match": Description("ETags; the request is carried out only if none of them is current.", '"6"'),
    # strategies
    "StrategyOut.name": Description("Name of the strategy.", "lwf-bsr"),
    "title": Description("Display name.", "Learning without forgetting"),
    "explanation": Description(
        "What the strategy does, and what it is good for.", "Distils what the old version knows into the new one."
    ),
    "source": Description("Where it was published.", "Li and Hoiem, 2016"),
    "formula": Description("Objective that is minimised.", "CE + λ · KD"),
    "StrategyOut.head": Description("Kind of heads it needs; null if both kinds work.", "linear"),
    "recipe_schema": Description("JSON schema of its recipe.", {"type": "object"}),
    # predictions
    "predictions": Description("The most probable classes of each image, best first.", [RANKED]),
    "ImagePredictionOut.predictions": Description("The most probable classes, best first.", RANKED),
    "probability": Description("Probability, 0 … 1.", 0.93),
    "top_k": Description("Number of classes given for each image.", 5),
    "record": Description(
        "behind (written soon after the answer, best effort) or durable (written before the answer).", "behind"
    ),
    "Accrete-Deadline-Seconds": Description("How long the answer may take, if less than the service allows.", 2.5),
    # the audit log, probes, errors
    "AuditEntryOut.number": Description("Place in the log.", 17),
    "key_id": Description("Identifier of the key that was used; null without one.", ID),
    "key_name": Description("Name of the key.", "label tool"),
    "client": Description("Address of the caller.", "10.0.0.7"),
    "action": Description("Method and route.", "DELETE /v1/images/{image_id}"),
    "path": Description("Path of the request.", f"/v1/images/{ID}"),
    "status": Description("HTTP status of the answer; null if none was given.", 204),
    "HealthOut.status": Description("ok, or unavailable.", "ok"),
    "checks": Description("Result of each check.", {"database": "ok", "broker": "ok"}),
    "type": Description("Address of a page about this type of problem.", "/problems/model-not-found"),
    "Problem.title": Description("The status in words.", "Not Found"),
    "detail": Description("What is wrong with this request, and what to do.", "There is no model 'nobody'."),
    # the Open Inference Protocol
    "live": Description("Whether the process answers.", True),
    "ready": Description("Whether it can answer.", True),
    "IndexIn.ready": Description("Whether to list only models that can answer.", True),
    "ServerOut.name": Description("Name of the server.", "accrete"),
    "ServerOut.version": Description("Release of the server.", "0.1.0"),
    "extensions": Description("Extensions of the protocol that are supported.", ["binary_tensor_data"]),
    "TensorOut.name": Description("Name of the tensor.", "image"),
    "InputIn.name": Description("Name of the tensor: image.", "image"),
    "OutputIn.name": Description("Name of the tensor: probabilities.", "probabilities"),
    "InferTensorOut.name": Description("Name of the tensor.", "probabilities"),
    "datatype": Description("Type of the elements: FP32, or BYTES of image files.", "FP32"),
    "shape": Description("Size of each dimension.", [1, 3, 32, 32]),
    "platform": Description("Framework that computes it.", "onnxruntime_onnx"),
    "inputs": Description("Input tensors.", []),
    "InferIn.inputs": Description(
        "The images, one tensor.", [{"name": "image", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [0.5]}]
    ),
    "outputs": Description("Output tensors.", []),
    "parameters": Description("Options of the protocol.", {}),
    "IndexEntryOut.version": Description("Number of the version; empty where there is none yet.", "3"),
    "state": Description("READY or UNAVAILABLE.", "READY"),
    "IndexEntryOut.reason": Description("Why it cannot answer; empty if it can.", ""),
    "InferIn.id": Description("Request id chosen by the caller; the answer has the same.", "42"),
    "InferOut.id": Description("Request id that the caller chose.", "42"),
    "binary_data_output": Description("Whether output tensors are sent as bytes after the JSON.", False),
    "binary_data": Description("Whether this tensor is sent as bytes after the JSON.", False),
    "binary_data_size": Description("Number of bytes of this tensor after the JSON.", 12288),
    "timeout": Description("How long the answer may take, in microseconds.", 2_000_000),
    "classification": Description("Number of best classes to give instead of all probabilities; 0: all.", 3),
    "InputIn.data": Description("Elements of the tensor, flat or nested; files in base64.", [0.5]),
    "InferTensorOut.data": Description("Elements of the tensor; null if they are sent after the JSON.", [0.93, 0.07]),
}


def describe(schema: str, properties: Mapping[str, dict[str, Any]]) -> None:
    """Add a description and an example, in place, to the properties of a schema that have none."""
    for name, described in properties.items():
        if (description := DESCRIPTIONS.get(f"{schema}.{name}", DESCRIPTIONS.get(name))) is not None:
            described.setdefault("description", description.text)
            if "example" not in described:
                described.setdefault("examples", [description.example])
