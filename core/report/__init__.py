"""The report of a run: one self-contained HTML page that shows what was made, what was turned down, and why."""

from __future__ import annotations

from .writer import write_report

__all__ = ["write_report"]
