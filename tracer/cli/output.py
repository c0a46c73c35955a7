"""One way out for every listing: a table for people, JSON or CSV for programs.

Data goes to standard output, talk to standard error. JSON and CSV carry the plain values of
every key (`_ns` stays nanoseconds); only the table is formatted.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from tracer.cli.fit import fit, head
from tracer.report.flat import flat_row, plain
from tracer.report.text import printable, short_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ABSENT = "–"
_NARROWEST = 40
_WIDEST = 240  # characters of a cell


@dataclass(frozen=True)
class Output:
    """What the output options ask for.

    `fmt` is a tabulate format, None if not given; `width` characters in a line, None if a table
    may be as wide as it wants.
    """

    form: Literal["table", "json", "csv"] = "table"
    fmt: str | None = None
    headers: bool = True
    width: int | None = None


@dataclass(frozen=True)
class Column:
    """A table column: the row's key, its title, and how a value is shown to people.

    Where a table is wider than the terminal: columns of the highest `rank` are left out first (0:
    never), and those that stand in for them (`instead`: that rank) come in. Then texts are
    shortened by `fit`, down to `least` characters (None: never).
    """

    key: str
    title: str
    show: Callable[[Any], str] | None = None
    right: bool = False
    rank: int = 0
    instead: int = 0
    least: int | None = None
    fit: Callable[[str, int], str] = head

    def cell(self, row: Mapping[str, Any]) -> str:
        """Return the text of this column in a row; a dot in the key descends."""
        value: Any = row
        for part in self.key.split("."):
            value = value.get(part) if value is not None else None
        if self.show:
            value = self.show(value)
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value)) or None
        text = ABSENT if value is None else printable(str(value))
        return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _set_color(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value in ("always", "never"):
        ctx.color = value == "always"
    elif value == "auto" or ctx.color is None:
        ctx.color = _color_of_environment()


def _color_of_environment() -> bool | None:
    """Return what NO_COLOR and FORCE_COLOR say; None leaves it to the terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR") or os.environ.get("CLICOLOR_FORCE") or "0"
    return True if forced != "0" else None


color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    expose_value=False,
    is_eager=True,
    callback=_set_color,
    help="Colours: auto (default; obeys NO_COLOR), always or never.",
)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json, --csv, --fmt, --no-headers, --width, --color; they come as `output: Output`."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON document.")
    @click.option("--csv", "as_csv", is_flag=True, help="CSV with all columns, plain values.")
    @click.option("--fmt", metavar="FORMAT", help="Table format of tabulate, such as github.")
    @click.option("--no-headers", is_flag=True, help="Leave the header line out.")
    @click.option(
        "--width",
        type=click.IntRange(_NARROWEST),
        metavar="N",
        help="Make a table fit N columns; default the terminal's.",
    )
    @color_option
    @functools.wraps(command)
    def wrapped(
        *args: Any,  # noqa: ANN401 (a decorator of any command)
        as_json: bool,
        as_csv: bool,
        fmt: str | None,
        no_headers: bool,
        width: int | None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if as_json + as_csv + (fmt is not None) > 1:
            raise click.UsageError("--json, --csv and --fmt exclude each other")
        if fmt is not None:
            _check_format(fmt)
        form: Literal["table", "json", "csv"] = "json" if as_json else "csv" if as_csv else "table"
        output = Output(form, fmt, not no_headers, width or _terminal_width())
        return command(*args, output=output, **kwargs)

    return wrapped


def _terminal_width() -> int | None:
    """Return the columns of the terminal, or those that COLUMNS asks for."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()):
        return None
    return max(shutil.get_terminal_size().columns, _NARROWEST)


def _check_format(fmt: str) -> None:
    from tabulate import tabulate_formats  # noqa: PLC0415 (--help must not pay for it)

    if fmt not in tabulate_formats:
        raise click.BadParameter(
            f"{fmt!r} is none of {', '.join(tabulate_formats)}", param_hint="--fmt"
        )


def emit(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    output: Output,
    json_key: str = "rows",
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Print a listing.

    Args:
        rows: all values of each row, plain; JSON and CSV show them all.
        columns: what the table shows, in its order.
        output: the user's choice.
        json_key: the rows' name in the JSON document.
        extra: further keys of the JSON document.

    """
    if output.form == "json":
        emit_json({**(extra or {}), json_key: list(rows)})
    elif output.form == "csv":
        _emit_csv(rows, [c.key for c in columns], headers=output.headers)
    else:
        click.echo(table(rows, columns, output))


def emit_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document; `version` comes first."""
    text = json.dumps({"version": 1, **document}, default=plain)
    click.echo(text)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], output: Output) -> str:
    """Return the table as text, without a newline at its end.

    It fits `output.width` unless `output.fmt` asks for another program's format.
    """
    from tabulate import tabulate  # noqa: PLC0415 (--help must not pay for it)

    cells = [[column.cell(row) for column in columns] for row in rows]
    columns, cells = fit(columns, cells, None if output.fmt else output.width)
    titles = [column.title for column in columns] if output.headers else []
    if not cells:
        return tabulate([], headers=titles, tablefmt=output.fmt or "simple") if titles else ""
    return tabulate(
        cells,
        headers=titles,
        tablefmt=output.fmt or ("simple" if output.headers else "plain"),
        colalign=["right" if column.right else "left" for column in columns],
        disable_numparse=True,
    )


def _emit_csv(rows: Iterable[Mapping[str, Any]], fallback: list[str], *, headers: bool) -> None:
    flat = [flat_row(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row)) or fallback
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    if headers:
        writer.writeheader()
    writer.writerows(flat)


def format_ns(value: float | None) -> str:
    """Show nanoseconds with three digits or more: `0.4 µs`, `83.1 µs`, `1.52 ms`, `12.3 s`."""
    if value is None:
        return ABSENT
    for limit, unit, scale in ((1e6, "µs", 1e3), (1e9, "ms", 1e6)):
        # half a unit of the last digit below the limit would round up to 1000
        if abs(value) < limit * 0.9995:
            return f"{_three_digits(value / scale)} {unit}"
    return f"{_three_digits(value / 1e9)} s"


def _three_digits(value: float) -> str:
    size = abs(value)
    if size >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 9.995 or size < 0.95 else f"{value:.2f}"


def format_place(where: str | None) -> str:
    """Show a source line by its folder, file and number: `app/db.py:36`."""
    return short_place(where) if where else ABSENT


def format_bytes(value: float | None) -> str:
    """Show a number of bytes: `17 B`, `64.0 KiB`."""
    if value is None:
        return ABSENT
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def format_calls(value: Sequence[Mapping[str, Any]]) -> str:
    """Show the two longest of some system calls: `3x mmap 12.5 µs, 1x munmap 4.1 µs`."""
    shown = [f"{c['count']}x {c['name']} {format_ns(c['dur_ns'])}" for c in value[:2]]
    return ", ".join(shown) or ABSENT


def format_count(value: float | None) -> str:
    """Show a count in groups of three: `1,234,567`."""
    return ABSENT if value is None else f"{value:,.0f}"


def format_share(value: float | None) -> str:
    """Show a share of one as per cent: `0.123` is `12 %`."""
    return ABSENT if value is None else f"{100 * value:.0f} %"
