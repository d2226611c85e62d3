"""Series and rows of a query as CSV, as `simulacra.series.reading` reads them again."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simulacra.runs import write_atomically
from simulacra.series.reading import Rows, Table
from simulacra.series.windows import date_of
from simulacra.study import Refused


def write_table(table: Table, path: Path) -> None:
    """A line per series and period: series (where there are several), date, one column per measurement; a missing value is empty."""
    several = len(table.names) > 1
    lines = (
        [*([name] if several else []), date_of(int(day)), *(format(v, ".10g") if math.isfinite(v) else "" for v in values)]
        for name, record in zip(table.names, table.values, strict=True)
        for day, values in zip(table.days, record, strict=True)
    )
    _write([*(["series"] if several else []), "date", *table.columns], lines, path)


def write_rows(rows: Rows, path: Path) -> None:
    """The rows of a query, as they came; what is null is empty."""
    columns = [["" if value is None else value for value in values] for values in rows.columns.values()]
    _write(list(rows.columns), zip(*columns, strict=True), path)


def _write(header: list[str], lines: Iterable[Iterable[Any]], path: Path) -> None:
    if path.suffix.lower() != ".csv":
        raise Refused(f"cannot write {path.name}: choose a name that ends in .csv")
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent} to write {path.name} into")
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(header)
    out.writerows(lines)
    write_atomically(path, text.getvalue().encode())
