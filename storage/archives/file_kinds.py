"""What a file is, by its name alone: an image, a file to ignore, or a reject."""

import re
from collections.abc import Sequence

HIDDEN = "hidden: its name, or that of a folder above it, begins with a dot"
SYSTEM = "written by an operating system or a tool"
NO_PICTURE = "no image by its name"
NOT_READ = "no image that is read: JPEG, PNG, WEBP, BMP and GIF are"
PACKED = "an archive within the archive: unpack it first"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OTHER_PICTURES = _words(
    ".tif .tiff .heic .heif .avif .svg .jp2 .j2k .jxl .ico .icns .psd .xcf .eps .tga .pcx .ppm .pgm .pbm .pnm .exr "
    ".hdr .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .dcm .dicom .nii .pdf .mp4 .mov .avi .mkv .webm .wmv .m4v .mpg "
    ".mpeg"
)
_ARCHIVES = _words(".zip .tar .tgz .gz .bz2 .xz .zst .7z .rar")
_OTHERS = _words(
    ".txt .md .markdown .rst .csv .tsv .json .jsonl .ndjson .xml .yaml .yml .toml .ini .cfg .conf .log .html .htm .css "
    ".js .ts .py .ipynb .r .m .mat .sh .bat .ps1 .c .h .cpp .java .doc .docx .odt .rtf .xls .xlsx .ods .ppt .pptx .tex "
    ".bib .db .sqlite .sqlite3 .lock .bak .tmp .part .crdownload .lnk .url .webloc .exe .dll .so .pyc .names .data "
    ".cache .npy .npz .pkl .pickle .pt .pth .ckpt .onnx .h5 .hdf5 .pb .tflite .safetensors .bin .parquet .feather "
    ".arrow .tfrecord .record .md5 .sha1 .sha256 .sfv .aae .xmp .thm .pp3 .dop .wav .mp3 .flac .ogg .m4a .gpx .kml "
    ".geojson"
)
_PLAIN = _words(
    "readme license licence copying notice authors changelog changes contributing citation todo version manifest "
    "makefile dockerfile procfile install history checksums md5sums sha1sums sha256sums classes labels"
)
_SYSTEM_FILES = frozenset(
    ["thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "icon\uf00d", "picasa.ini"]
)
_SYSTEM_FOLDERS = frozenset(
    ["__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"]
)


_SUSPECT = re.compile(  # a quick test, so that few names are examined part by part
    rf"(?:^|/)(?:\.|(?:{'|'.join(map(re.escape, sorted(_SYSTEM_FILES | _SYSTEM_FOLDERS)))})(?:/|$))", re.IGNORECASE
)


def ignored_because(parts: Sequence[str]) -> str | None:
    """Why a file is ignored as hidden or as a system's file, or None."""
    if not _SUSPECT.search("/".join(parts)):
        return None
    if any(part.startswith(".") for part in parts):
        return HIDDEN
    is_system = parts[-1].lower() in _SYSTEM_FILES or any(part.lower() in _SYSTEM_FOLDERS for part in parts)
    return SYSTEM if is_system else None


def extension(filename: str) -> str:
    """The part from the last dot on, in lower case; empty if the name has no dot, or only a leading one."""
    stem, dot, last = filename.rpartition(".")
    return f".{last.lower()}" if stem and dot else ""


def is_no_image_by_name(filename: str, ending: str) -> bool:
    """Whether a file's name says that it is text, data or a program: such files often lie beside images."""
    return ending in _OTHERS or (not ending and filename.lower() in _PLAIN)


def unread_because(ending: str) -> str | None:
    """Why a file that may be meant as an image cannot be read, or None; unknown extensions are read as images."""
    if ending in _OTHER_PICTURES:
        return NOT_READ
    return PACKED if ending in _ARCHIVES else None
