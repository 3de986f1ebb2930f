"""Figures, their goals, and how both are shown."""

import json
import statistics
from dataclasses import asdict, dataclass, field


@dataclass
class Figure:
    """One result: the median of its samples, and the bound it has to keep, if any."""

    name: str
    samples: list
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""
    digits: int = 2
    median: float = field(init=False)

    def __post_init__(self):
        self.median = statistics.median(self.samples)

    @property
    def met(self):
        """None for a figure without a goal."""
        if self.at_least is not None:
            return self.median >= self.at_least
        return None if self.at_most is None else self.median <= self.at_most

    def _number(self, value):
        return f"{value:,.{self.digits}f}"

    def row(self):
        """The cells of the table."""
        goal, verdict = "", ""
        if self.at_least is not None:
            goal = f">= {self.at_least:g}"
        if self.at_most is not None:
            goal = f"<= {self.at_most:g}"
        if self.met is not None:
            verdict = "met" if self.met else "MISSED"
        many = len(self.samples) > 1
        span = f"{self._number(min(self.samples))} - {self._number(max(self.samples))}" if many else ""
        return [self.name, f"{self._number(self.median)} {self.unit}".strip(), span, goal, verdict, self.note]


def beside(runs, others, key, unit, digits):
    """The medians of one counter on both sides, as a note."""
    ours, theirs = (statistics.median(run[key] for run in side) for side in (runs, others))
    return f"{ours:,.{digits}f} / {theirs:,.{digits}f} {unit}".strip()


def compared(name, ours, theirs, key, unit="", digits=0, **bounds):
    """One counter of ours as a share of theirs, round by round; both medians as the note."""
    shares = [a[key] / b[key] for a, b in zip(ours, theirs, strict=True)]
    return Figure(name, shares, digits=3, note=beside(ours, theirs, key, unit, digits), **bounds)


HEAD = ["figure", "median", "range", "goal", "", "note"]


def table(figures):
    """A table that reads well as plain text and as Markdown."""
    rows = [HEAD, *(figure.row() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def document(machine, settings, figures):
    """The same for machines."""
    entries = [asdict(figure) | {"met": figure.met} for figure in figures]
    return json.dumps({"machine": machine, "settings": settings, "figures": entries}, indent=2)
