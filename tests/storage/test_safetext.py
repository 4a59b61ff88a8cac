"""What is shown of text from anybody: it steers no terminal, and names no secret."""

import json
import logging
import sys
import unicodedata
from logging import LogRecord

import pytest

from storage import safetext
from storage.logs import JsonLines, TextLines
from storage.requests.keys import PREFIX

KEY = PREFIX + "x7" * 21 + "_"
JOINERS = {"\u200c", "\u200d"}  # of Indic scripts and of emoji
# Of everything that Unicode calls control, format, separator of lines or paragraphs, or half a character: what is not
# a mark within a script, but moves the cursor, the direction or the line.
CONTROLS = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in {"Cc", "Zl", "Zp"}]
DIRECTIONS = [chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]


def entry(message: str, *arguments: object, **extra: object) -> LogRecord:
    made = logging.LogRecord("a.module", logging.INFO, "a.py", 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_a_line_holds_nothing_that_steers():
    shown = safetext.line("".join([*CONTROLS, *DIRECTIONS, "\ud800", "\ufeff"]))
    assert shown.isascii()
    assert shown.isprintable()


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()], ids=["text", "json"])
@pytest.mark.parametrize("character", [*CONTROLS, *DIRECTIONS], ids=lambda character: f"{ord(character):x}")
def test_no_log_holds_a_character_that_steers_wherever_it_comes_from(formatter, character):
    said = formatter.format(entry("GET /%s: no", f"a{character}b", method=f"c{character}d"))
    assert character not in said
    assert len(said.splitlines()) == 1
    said.encode("utf-8")


def test_json_lines_say_in_full_what_they_escape():
    said = json.loads(JsonLines().format(entry("a\x1bb\x7fc\u2028d", label="\u202ee")))
    assert (said["message"], said["label"]) == ("a\x1bb\x7fc\u2028d", "\u202ee")


def test_a_traceback_keeps_its_lines_and_nothing_else():
    record = entry("it failed")
    try:
        raise ValueError("\x1b[2Jgone\r" + KEY)
    except ValueError:
        record.exc_info = sys.exc_info()
    said = TextLines().format(record)
    assert said.count("\n") >= 2
    assert "\x1b" not in said
    assert "\r" not in said
    assert KEY not in said


@pytest.mark.parametrize("text", ["größe", "日本語", "عربي", "👩‍👧", "क्‍ष", "plain [red] :smile:", "a\tb"])
def test_names_in_any_script_stay_as_they_are(text):
    assert safetext.lines(text) == text
    assert safetext.discreet(text) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"no model {KEY!r}", KEY),
        (f"Illegal header value b'Bearer {KEY}\\n'", KEY),
        ("Illegal header value b'Bearer 0123456789abcdef0123456789abcdef'", "0123456789abcdef"),
        ("cannot parse postgresql://user:geheim@host/db", "geheim"),
        ("cannot parse postgresql://user:ge@he/im#1@host:x/db", "im#1"),
        ("redis://:geheim@host:6379/0 is away", "geheim"),
        ("redis+socket://:geheim@/tmp/s", "geheim"),
        ("https://0123456789abcdef0123456789abcdef@host/", "0123456789abcdef"),
        ("s3://bucket/p?endpoint_url=http://a&secret_access_key=geheim", "geheim"),
        ("GET http://host/v1/models?key=geheim failed", "geheim"),
        ("host=h password=geheim dbname=x", "geheim"),
        ('{"password": "geheim", "user": "x"}', "geheim"),
        ("{'aws_secret_access_key': 'geheim'}", "geheim"),
        ("AWS_SECRET_ACCESS_KEY=geheim", "geheim"),
    ],
)
@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()], ids=["text", "json"])
def test_no_message_and_no_log_holds_a_secret(formatter, text, secret):
    assert secret not in safetext.message(text)
    assert secret not in formatter.format(entry(text))
    assert secret not in formatter.format(entry("%s", text, also=[{"it": text}]))


@pytest.mark.parametrize(
    "text",
    [
        "accrete_requests_total and accrete_training_images_per_second",
        "send it as `Authorization: Bearer KEY`.",
        "http://127.0.0.1:8000/v1/models/a answered 404",
        "unexpected token at position 5; password authentication failed",
        "epochs=10 and key_name=anna",
    ],
)
def test_what_is_no_secret_is_told(text):
    assert safetext.discreet(text) == text
