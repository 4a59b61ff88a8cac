"""What the pages share: their frame, safe text, tables, and what happens while data are loaded."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from api.client.connection import ClientError, Forbidden, Unauthenticated

OF_MODEL = (("", "Overview"), ("/teach", "Teach"), ("/compare", "Compare"), ("/try", "Try"), ("/history", "History"))
MISSING = "–"
Cell = str | Callable[[], object]


def text(tag: str, content: str, classes: str = "") -> TextElement:
    """An element of text, which is shown as it is: labels and file names are what users wrote."""
    return TextElement(tag=tag, text=content).classes(classes)


def box(classes: str, tag: str = "div") -> Element:
    """An element for others."""
    return ui.element(tag).classes(classes)


def link(content: str, address: str, classes: str = "") -> Element:
    """A link to a page of the dashboard."""
    made = TextElement(tag="a", text=content).classes(classes)
    made.props["href"] = address
    return made


def page_of(model: str, part: str = "") -> str:
    """The address of a page of a model."""
    return f"/models/{quote(model, safe='')}{part}"


@contextmanager
def frame(title: str, *, model: str | None = None, part: str = "") -> Iterator[None]:
    """The frame of a page: its head, the pages of its model, and a place for its contents."""
    with box("top", "header"):
        link("Accrete", "/", "brand")
        with box("side"):
            link("Models", "/", "")
            link("Key", "/key", "")
    if model is not None:
        with box("sub", "nav").props('aria-label="Pages of the model"'):
            for address, name in OF_MODEL:
                made = link(name, page_of(model, address), "here" if address == part else "")
                if address == part:
                    made.props["aria-current"] = "page"
    with box("page", "section"):  # NiceGUI has its own main element around everything
        text("h1", title)
        yield


async def draw_page(
    work: Callable[[], Awaitable[object]], title: str, *, model: str | None = None, part: str = ""
) -> None:
    """A page whose contents ``work`` draws, in its frame."""
    with frame(title, model=model, part=part), box("stack") as place:
        text("p", "Loading …", "quiet")
    await loaded(place, work)


async def loaded(place: Element, work: Callable[[], Awaitable[object]]) -> None:
    """Fill a place once the browser has connected; an error is shown there in words.

    Also runs after a reconnection, so it begins with an empty place.
    """
    await ui.context.client.connected()
    place.clear()
    with place:
        try:
            await work()
        except ClientError as error:
            place.clear()
            failed(error)


def failed(error: ClientError) -> None:
    """Show why the API did not answer, and what to do."""
    with box("card"):
        text("p", str(error), "fault")
        if isinstance(error, (Unauthenticated, Forbidden)):
            link("Give a key that may do this", "/key", "")


def tell(error: ClientError) -> None:
    """Show why a request was refused, over the page."""
    ui.notify(str(error), type="negative", multi_line=True, close_button="Close", timeout=15_000)


def ask(title: str, *, told: str, field: str, value: str, act: Callable[[str], Awaitable[object]], name: str) -> None:
    """Ask for a text in a dialog, and act; the page is loaded again then. ``name`` is that of the button."""
    with ui.dialog(value=True) as dialog, box("card"):
        text("h2", title)
        text("p", told, "quiet")
        given = ui.input(field, value=value).props("outlined dense autofocus")

        async def acted() -> None:
            try:
                await act(given.value or "")
            except ClientError as error:
                tell(error)
                return
            dialog.close()
            ui.navigate.reload()

        with box("line"):
            button(name, acted, "first")
            button("Cancel", dialog.close)


def button(content: str, act: Callable[[], object], classes: str = "") -> Element:
    """A button in the dashboard's own look."""
    made = TextElement(tag="button", text=content).classes(f"button {classes}")
    made.props["type"] = "button"
    made.on("click", act)
    return made


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: Sequence[int] = ()) -> Element:
    """A table of texts; a cell may be a function that fills it. Columns named by ``right`` hold numbers."""
    with box("table") as made, box("", "table"):
        made.props('tabindex=0 role="region" aria-label="Table"')  # it scrolls where it does not fit, by keys too
        with box("", "thead"), box("", "tr"):
            for place, heading in enumerate(headings):
                text("th", heading, "right" if place in right else "").props["scope"] = "col"
        with box("", "tbody"):
            for row in rows:
                with box("", "tr"):
                    for place, cell in enumerate(row):
                        classes = "right" if place in right else ""
                        if isinstance(cell, str):
                            text("td", cell, classes)
                        else:
                            with box(classes, "td"):
                                cell()
    return made


def thumbnails(ids: Sequence[str], *, described: str, small: bool = False) -> Element:
    """Small pictures of stored images."""
    with box("thumbs small" if small else "thumbs") as made:
        for image_id in ids:
            shown = ui.element("img")
            shown.props["src"] = f"/pictures/{image_id}?side={48 if small else 112}"
            shown.props["alt"] = described
            shown.props["loading"] = "lazy"
    return made


def percent(share: float | None, digits: int = 1) -> str:
    """A share in 0 … 1 in percent."""
    return MISSING if share is None else f"{100 * share:.{digits}f}"


def moment(written: str | None) -> str:
    """A time as people read it."""
    return MISSING if written is None else written[:16].replace("T", " ")
