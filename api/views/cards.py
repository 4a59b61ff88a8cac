"""Model cards: a version in words and figures, in Markdown with the metadata that Hugging Face reads.

What only a person can know is marked "not stated" (Mitchell et al., arXiv:1810.03993, is the form).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.domain import Batch, Edit, Json, Model, Relabel, Split, Version
from trainer.networks.description import NOT_STATED as UNKNOWN

NOT_STATED = f"*{UNKNOWN}*"
WORST = 3  # classes that are named as the weakest
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$^=-])")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a card is about."""

    model: Model
    line: Sequence[Version]  # the version and its ancestors, oldest first
    batches: Mapping[str, Batch]  # by increment id: what each version of the line learned from
    metrics: Json  # of the version
    manifest: Json  # its version.json
    relabels: Sequence[Relabel] = ()  # images that were moved to another class since

    @property
    def version(self) -> Version:
        """The version of the card."""
        return self.line[-1]


def card(subject: Subject) -> str:
    """The card of a version; two cards of one version are equal."""
    parts = (_front_matter, _title, _intended_use, _data, _training, _evaluation, _limits, _files, _use)
    return "\n\n".join(part(subject) for part in parts) + "\n"


def escaped(text: str) -> str:
    """Text as Markdown shows it: labels and names are users' text, and may look like markup."""
    return _SPECIAL.sub(r"\\\1", text)


def _front_matter(subject: Subject) -> str:
    """YAML, in which JSON is allowed: so no label or name can end a string."""
    accuracy = subject.metrics["tag"]["average_accuracy"]
    found = [{"type": "accuracy", "name": "average accuracy over tasks (task-agnostic)", "value": accuracy}]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": f"held-out images of {subject.model.name}", "type": "image-classification"},
        "metrics": found if accuracy is not None else [],
    }
    model, version = subject.model, subject.version
    fields = {
        "license": "unknown",
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "class-incremental-learning", "accrete", model.network, version.strategy],
        "model-index": [{"name": f"{model.name} version {version.number}", "results": [result]}],
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _title(subject: Subject) -> str:
    model, version = subject.model, subject.version
    colour = "grey" if model.channels == 1 else "colour"
    made = "edited" if version.edit is not None else "taught"
    before = "It is the first version." if version.parent is None else f"It was {made} from version {version.parent}."
    return (
        f"# {escaped(model.name)}, version {version.number}\n\n"
        f"A classifier of {len(version.classes)} classes: {escaped(model.network)} on {colour} images of "
        f"{model.image_size}×{model.image_size} pixels, made on {version.created_at.date().isoformat()}. {before}"
    )


def _intended_use(_: Subject) -> str:
    return (
        "## Intended use\n\n"
        f"Who should use it, and for what: {NOT_STATED}.\n\n"
        f"What it must not be used for: {NOT_STATED}."
    )


def _data(subject: Subject) -> str:
    counts: dict[str, list[int]] = {label: [0, 0] for label in subject.version.classes}
    for batch in subject.batches.values():
        for count in batch.classes:
            label = subject.version.merged.get(count.label, count.label)
            if label in counts:
                counts[label][0] += count.train
                counts[label][1] += count.test
    rows = [
        (task, escaped(label), *counts[label])
        for task, labels in enumerate(subject.version.tasks, start=1)  # as people count
        for label in labels
    ]
    return (
        "## Data\n\n"
        f"Where the images come from, what they show, and who agreed to their use: {NOT_STATED}.\n\n"
        f"{_table(('task', 'class', 'images to train', 'images to evaluate'), rows)}\n\n"
        "The counts are of images that are still stored. "
        f"Digest of the data of the last increment: `{subject.version.data_digest}`."
    )


def _training(subject: Subject) -> str:
    rows = [
        (
            version.number,
            _change(subject, place),
            "edit" if version.edit is not None else version.strategy,
            f"{sum(version.seconds.values()):.1f}",
            escaped(version.code_version),
        )
        for place, version in enumerate(subject.line)
    ]
    recipe = json.dumps(dict(subject.version.recipe), ensure_ascii=False, sort_keys=True)
    return (
        "## Training\n\n"
        "The classes came in increments. Each learned from the version before it, by distillation:\n\n"
        f"{_table(('version', 'new classes, or change', 'strategy', 'seconds', 'release'), rows)}\n\n"
        f"Hyper-parameters of the last one: `{recipe.replace('`', '')}`."
    )


def _change(subject: Subject, place: int) -> str:
    """What a version of the line added or, if it was edited, changed."""
    version, names = subject.line[place], subject.model.names
    if version.edit is None:
        return ", ".join(map(escaped, version.tasks[-1])) if _added(subject, place) else "–"
    edit = Edit.of(version.edit)
    merged = [f"{', '.join(names.all(one.labels))} merged into {names.name(one.into)}" for one in edit.merge]
    return escaped("; ".join([f"without {name}" for name in names.all(edit.drop)] + merged))


def _evaluation(subject: Subject) -> str:
    forms = {"tag": "task-agnostic", "taw": "task-aware"}
    names = {
        "average_accuracy": "average accuracy over tasks",
        "micro_accuracy": "accuracy over images",
        "average_incremental_accuracy": "average accuracy over all versions",
        "forgetting": "forgetting",
        "calibration_error": "expected calibration error",
    }
    rows = [(name, *(_share(subject.metrics[form][key]) for form in forms)) for key, name in names.items()]
    of_classes = [
        (escaped(label), found["support"], _share(found["recall"]), _share(found["precision"]))
        for label, found in subject.metrics["tag"]["per_class"].items()
    ]
    return (
        "## Evaluation\n\n"
        "Measured on held-out images, in %. Task-agnostic is what users see: the best of all classes. Task-aware is "
        "the best within the classes of the image's own increment.\n\n"
        f"{_table(('', *forms.values()), rows)}\n\n"
        f"{_table(('class', 'images', 'recall', 'precision'), of_classes)}"
    )


def _limits(subject: Subject) -> str:
    recalls = {label: found["recall"] for label, found in subject.metrics["tag"]["per_class"].items()}
    measured = sorted((recall, label) for label, recall in recalls.items() if recall is not None)
    unknown = [label for label, recall in recalls.items() if recall is None]
    said = ["Every image gets one of these classes, also an image that shows none of them."]
    if measured:
        worst = ", ".join(f"{escaped(label)} ({_share(recall)} %)" for recall, label in measured[:WORST])
        said.append(f"Least often recognised: {worst}.")
    if unknown:
        said.append(f"Not measured, since no held-out images are stored: {', '.join(map(escaped, unknown))}.")
    for side, use in ((Split.TRAIN, "learned from"), (Split.TEST, "measured on")):
        if moved := len({one.image_id for one in subject.relabels if one.split is side}):
            said.append(f"Images that it {use} and that were moved to another class since: {moved}.")
    said.append(f"Other limits and risks: {NOT_STATED}.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in said)


def _files(subject: Subject) -> str:
    rows = [(f"`{name}`", file.bytes, f"`{file.sha256}`") for name, file in sorted(subject.version.files.items())]
    compared = subject.manifest.get("executable") or {}
    agreement = (
        f"`network.onnx` was compared with the trained network on {compared['images']} held-out images: "
        f"probabilities differ by at most {compared['largest_difference']:.1g}."
        if "largest_difference" in compared
        else f"Comparison of a graph with the trained network: {NOT_STATED}."
    )
    return f"## Files\n\n{_table(('file', 'bytes', 'SHA-256'), rows)}\n\n{agreement}\n\nLicence: {NOT_STATED}."


def _use(subject: Subject) -> str:
    size = subject.model.image_size
    mode = "L" if subject.model.channels == 1 else "RGB"
    shape = "[None, None]" if subject.model.channels == 1 else ".transpose(2, 0, 1)[None]"
    return (
        "## Use\n\n"
        "The exported file holds the labels; any ONNX runtime computes it.\n\n"
        "```python\n"
        "import json\n\n"
        "import numpy as np\n"
        "import onnxruntime\n"
        "from PIL import Image, ImageOps\n\n"
        f'session = onnxruntime.InferenceSession("{_file_name(subject)}")\n'
        'labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])\n'
        'image = ImageOps.exif_transpose(Image.open("image.jpg"))\n'
        f'image = image.convert("{mode}").resize(({size}, {size}), Image.Resampling.BILINEAR)\n'
        f"pixels = np.asarray(image){shape}\n"
        'probabilities = session.run(["probabilities"], {"pixels": pixels})[0][0]\n'
        "print(labels[probabilities.argmax()], probabilities.max())\n"
        "```"
    )


def _file_name(subject: Subject) -> str:
    return f"{subject.model.name}-{subject.version.number}.onnx"


def _added(subject: Subject, place: int) -> bool:
    """Whether the version at a place of the line added a task."""
    before = len(subject.line[place - 1].tasks) if place else 0
    return len(subject.line[place].tasks) > before


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
