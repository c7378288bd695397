"""How the report writes numbers."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

MINUS, THIN_SPACE, MISSING = "\u2212", "\u202f", "\u2013"


def number(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits, a true minus sign and thousands set apart; – for none."""
    if value is None or not math.isfinite(value):
        return MISSING
    if float(value).is_integer() and abs(value) < 1e15:
        return count(int(value))
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        power = str(int(exponent)).replace("-", MINUS)
        return f"{mantissa}e{power}".replace("-", MINUS)
    return text.replace("-", MINUS)


def fixed(value: float | None, decimals: int = 3) -> str:
    """Return ``value`` with ``decimals`` decimals, for columns that are compared digit by digit; – for none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{decimals}f}".replace("-", MINUS)


def signed(value: float, decimals: int = 1) -> str:
    """Return ``value`` with its sign, also for a gain."""
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def count(value: int) -> str:
    """Return a whole number with its thousands set apart."""
    return f"{value:,}".replace(",", THIN_SPACE).replace("-", MINUS)


def percent(part: float, whole: float) -> str:
    """Return ``part`` of ``whole`` in percent; – where there is no whole. Only none is 0 %, only all is 100 %."""
    if not whole:
        return MISSING
    share = 100 * part / whole
    if 0 < share < 0.1:
        return f"< 0.1{THIN_SPACE}%"
    text = f"{share:.1f}"
    if text == "100.0" and part != whole:
        text = "99.9"
    return f"{text.removesuffix('.0')}{THIN_SPACE}%"


def plural(amount: int, noun: str) -> str:
    """Return an amount with its noun, the latter in the plural unless there is one."""
    return f"{count(amount)} {noun}" if amount == 1 else f"{count(amount)} {noun}s"


def duration(seconds: float) -> str:
    """Return seconds as a reader says them."""
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def breakable(text: str) -> Markup:
    """Return escaped text that may break after underscores and slashes, as names of scores are long."""
    return Markup(str(escape(text)).replace("_", "_<wbr>").replace("/", "/<wbr>"))
