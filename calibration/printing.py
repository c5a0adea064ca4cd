"""A target as a PDF at true scale, with a bar to check the printer by."""

import numpy as np

from worldpilot.calibration.targets import Target
from worldpilot.errors import InvalidInput, UnknownName

PAPERS = {"a4": (0.210, 0.297), "a3": (0.297, 0.420), "letter": (0.2159, 0.2794)}  # [m]
_MARGIN = 0.008  # [m], that printers leave white
_FOOT = 0.012  # [m], for bar and text
_POINT = 0.0254 / 72  # [m]
_BAR = 0.1  # [m]


def pdf(target: Target, paper: str = "a4") -> bytes:
    """A sheet with the target in its middle, upright or across, whichever fits.

    Raises:
        UnknownName: of a paper.
        InvalidInput: the target is larger than the paper.
    """
    if paper.lower() not in PAPERS:
        raise UnknownName("paper", paper, PAPERS)
    page = _page(target, paper.lower())
    width, height = target.size
    left, bottom = (page[0] - width) / 2, _MARGIN + _FOOT + (page[1] - 2 * _MARGIN - _FOOT - height) / 2
    lines = [f"{1 / _POINT:.8f} 0 0 {1 / _POINT:.8f} 0 0 cm"]  # metres from here on
    lines += [f"{left + x:.7f} {bottom + height - y - h:.7f} {w:.7f} {h:.7f} re" for x, y, w, h in target.rectangles]
    lines.append("f")  # one path, so that no seams show
    lines += _bar()
    lines += _text(_MARGIN + _BAR + 0.006, _MARGIN + 0.0045, str(target))
    lines += _text(
        _MARGIN + _BAR + 0.006, _MARGIN, "Print at 100 %. The bar is 100 mm long; if it isn't, scale the sides."
    )
    return _document("\n".join(lines), page)


def largest(target: Target, paper: str) -> float:
    """The factor by which the target would just fit on the paper."""
    return max(_room(target, *sides) for sides in (PAPERS[paper], PAPERS[paper][::-1]))


def _room(target: Target, width: float, height: float) -> float:
    return min((width - 2 * _MARGIN) / target.size[0], (height - 2 * _MARGIN - _FOOT) / target.size[1])


def _page(target: Target, paper: str) -> tuple[float, float]:
    sides = PAPERS[paper]
    fitting = [page for page in (sides, (sides[1], sides[0])) if _room(target, *page) >= 1]
    if not fitting:
        factor, size = (
            np.floor(100 * largest(target, paper)) / 100,
            " x ".join(f"{1e3 * side:.0f}" for side in target.size),
        )
        others = [name for name in PAPERS if largest(target, name) >= 1]
        hint = f", or take {' or '.join(others)}" if others else ""
        raise InvalidInput(
            f"paper: {target} is {size} mm, too large for {paper}; multiply its sides by {factor:g}{hint}"
        )
    return fitting[0]


def _bar() -> list[str]:
    ticks = [(_MARGIN + _BAR * i / 10, _MARGIN, 0.0002, 0.003 if i % 5 else 0.005) for i in range(11)]
    boxes = [(_MARGIN, _MARGIN, _BAR + 0.0002, 0.0002), *ticks]
    return [f"{x - 0.0001:.7f} {y:.7f} {w:.7f} {h:.7f} re" for x, y, w, h in boxes] + ["f"]


def _text(x: float, y: float, words: str) -> list[str]:
    escaped = words.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return ["BT", f"/F1 {8 * _POINT:.7f} Tf", f"{x:.7f} {y:.7f} Td", f"({escaped}) Tj", "ET"]


def _document(content: str, page: tuple[float, float]) -> bytes:
    stream = content.encode("ascii")
    box = " ".join(f"{side / _POINT:.4f}" for side in page)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {box}] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>".encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (size, table, size, len(out))
    )
