"""Descriptions of evaluations, of comparisons of two versions, and of images that were moved to another class."""

from collections.abc import Mapping

from api.openapi.description import ID, RANKED, SHARE, Description

COMPARISONS: Mapping[str, Description] = {
    "EvaluationsOut.recorded": Description("Whether there are results of single images.", True),
    "EvaluationsOut.note": Description("Why there are none; null if there are.", None),
    "EvaluationsOut.images": Description("How many images match.", 500),
    "EvaluationOut.filename": Description("Name of its file; null: the image was erased since.", "rose/7.jpg"),
    "predicted": Description("Class that it was taken for.", "tulip"),
    "correct": Description("Whether that is its class.", False),
    "top": Description("Most probable classes, best first.", RANKED),
    "form": Description("tag (best of all classes) or taw (best of the true task's).", "tag"),
    "with": Description("Number of the version to compare with.", 2),
    "ComparisonOut.relabelled": Description("Images that are left out, since their class was changed in between.", 0),
    "RelabelledOut.former_label": Description("Its class before.", "tulip"),
    "before": Description("Class before.", "tulip"),
    "after": Description("Class since then.", "rose"),
    "RelabelOut.key": Description("Name of the key that was used.", "label tool"),
    "RelabelOut.versions": Description(
        "Versions that had learned from it, or were measured on it, as the former class.", [1, 2]
    ),
    "RelabelledOut.versions": Description(
        "Versions that learned from it, or were measured on it, as the former class.", [1, 2]
    ),
    "RelabelledOut.note": Description("What that means for them.", "The versions stay as they are."),
    "ImageChange.label": Description("Class of the image from now on.", "rose"),
    "hits": Description("Images that are right.", 412),
    "share": Description("Share of the images, in 0 … 1.", 0.824),
    "low": Description("Lower end of its 95 % interval.", 0.788),
    "high": Description("Upper end of its 95 % interval.", 0.856),
    "PairOut.images": Description("Images that both were evaluated on.", 500),
    "ClassPairOut.images": Description("Images of the class that both were evaluated on.", 50),
    "PairOut.version": Description("Images that the version has right.", SHARE),
    "ClassPairOut.version": Description("Images that the version has right.", SHARE),
    "PairOut.other": Description("Images that the other version has right.", SHARE),
    "ClassPairOut.other": Description("Images that the other version has right.", SHARE),
    "better": Description("Images that only the version has right.", 12),
    "worse": Description("Images that only the other version has right.", 5),
    "p_value": Description("Exact McNemar test, two-sided: small if chance does not explain the difference.", 0.14),
    "got_better": Description("Some of the images that only the version has right.", [ID]),
    "got_worse": Description("Some of the images that only the other version has right.", [ID]),
    "other": Description("Number of the version to compare with.", 2),
    "recorded": Description("Whether there are results of single images of both.", True),
    "sentence": Description("The comparison in words.", "Of the 500 images that both were evaluated on, …"),
    "together": Description("All images that both were evaluated on; null: none.", None),
    "task_aware": Description("The same, task-aware; null: none.", None),
    "new_classes": Description("Images of classes without an image in common; null: none.", None),
    "only_version": Description("Classes that only the version knows.", ["tulip"]),
    "only_other": Description("Classes that only the other version knows.", []),
    "ComparisonOut.classes": Description("Each class with images in common.", []),
}
