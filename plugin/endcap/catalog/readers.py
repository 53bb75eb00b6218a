"""Reads the rows of a shop's product files: JSON lines, JSON arrays, CSV (all also gzipped) and Parquet.

Every reader streams: memory stays bounded by one row (at most :data:`MAX_ROW`) or one Parquet batch. The content
decides the format, not the file's name. A bad row is reported and the reading goes on; a file that breaks off is
reported, too, and marks the reading as incomplete, so that nobody takes the missing rows for deleted products.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from endcap.catalog.json_array import elements
from endcap.catalog.rejects import OnReject, Reject, excerpt
from endcap.errors import ConfigurationError, InvalidInput

#: Largest row (characters), and largest CSV field. Far above any product's, far below what hurts.
MAX_ROW = 4_000_000
_MAX_DEPTH = 32
_SNIFF = 64 * 1024
_PARQUET_BATCH = 1_000

OnNotice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the file. ``typed`` is false for CSV, where every value is text."""

    line: int
    values: dict[str, Any]
    typed: bool = True


class CatalogFile:
    """One file of products; iterate over it for its rows.

    ``size`` and ``position`` (bytes of the file as it lies on disk, or Parquet rows) measure progress. ``complete`` is
    true once the file was read to its end without it breaking off.
    """

    def __init__(self, path: Path, on_reject: OnReject, on_notice: OnNotice = lambda notice: None) -> None:
        """Open a file and find out its format.

        Raises:
            InvalidInput: it is not a file, cannot be read, or is none of the formats.
        """
        self.path = path
        self.name = str(path)
        self.complete = False
        self._reject = on_reject
        self._notice = on_notice
        self._raw: IO[bytes] | None = None
        self._last_line = 0
        self._noticed_encoding = False
        if path.is_dir():
            raise InvalidInput(f"{path} is a folder: name its files ({path}/*.jsonl)")
        try:
            self.size = path.stat().st_size
            with path.open("rb") as stream:
                magic = stream.read(4)
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from None
        self._gzipped = magic[:2] == b"\x1f\x8b"
        self.format = "empty" if not self.size else "parquet" if magic == b"PAR1" else self._sniff()
        extensions = {suffix.lower() for suffix in path.suffixes}
        named = next((kind for kind, suffixes in _EXTENSIONS.items() if suffixes & extensions), self.format)
        if self.format not in ("empty", named) and {self.format, named} != {"json", "jsonl"}:
            on_notice(f"{path} is read as {self.format}, which its content is, whatever its name says")

    @property
    def position(self) -> int:
        """How far the reading has come, from 0 to ``size``."""
        if self._raw is None or self._raw.closed:
            return self.size if self.complete else 0
        return self._raw.tell()

    def __iter__(self) -> Iterator[Row]:
        """The rows, in file order; what is wrong goes to ``on_reject``."""
        self.complete = False
        if self.format == "empty":
            self._notice(f"{self.path} is empty")
            self.complete = True
            return
        read = {
            "jsonl": self._read_jsonl,
            "json": self._read_json,
            "csv": self._read_csv,
            "parquet": self._read_parquet,
        }
        with self.path.open("rb") as raw:
            self._raw = raw
            try:
                yield from read[self.format](raw)
                self.complete = True
            except _Incomplete:
                pass
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self._broken(f"the gzip file breaks off: {error}")
            except OSError as error:
                self._broken(f"reading failed: {error}")

    def _broken(self, reason: str) -> None:
        self._notice(f"{self.path}: {reason}; the rows before line {self._last_line + 1} are used")
        self._reject(Reject(self.name, self._last_line + 1, reason))

    def _sniff(self) -> str:
        head = self._head()
        if b"\0" in head[:1000] and not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InvalidInput(f"{self.path} is neither JSON lines, JSON, CSV nor Parquet: it holds binary data")
        first = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        if first == b"{":
            return "jsonl"
        if first == b"[":
            return "json"
        if not first:
            return "empty"
        return "csv"

    def _head(self) -> bytes:
        with self.path.open("rb") as raw:
            if not self._gzipped:
                return raw.read(_SNIFF)
            # Not the gzip module: of a file that breaks off it gives nothing where something can be had.
            unpack = zlib.decompressobj(wbits=31)
            try:
                return unpack.decompress(raw.read(_SNIFF), _SNIFF)
            except zlib.error as error:
                raise InvalidInput(f"{self.path} is damaged: {error}") from None

    def _bytes(self, raw: IO[bytes]) -> IO[bytes]:
        return gzip.GzipFile(fileobj=raw) if self._gzipped else raw  # type: ignore[return-value]

    def _read_jsonl(self, raw: IO[bytes]) -> Iterator[Row]:
        for line, text in enumerate(self._lines(raw), 1):
            self._last_line = line
            if len(text) > MAX_ROW:
                self._reject(Reject(self.name, line, f"the row is longer than {MAX_ROW:,} bytes", excerpt(text)))
                continue
            text = text.strip()
            if not text:
                continue
            try:
                values = orjson.loads(text)
            except orjson.JSONDecodeError:
                try:
                    values = json.loads(self._decode(text))  # knows NaN, and text that is not UTF-8
                except (ValueError, RecursionError) as error:
                    self._reject(Reject(self.name, line, f"not JSON: {error}", excerpt(text)))
                    continue
            yield from self._checked(line, values)

    def _read_json(self, raw: IO[bytes]) -> Iterator[Row]:
        text = io.TextIOWrapper(self._bytes(raw), encoding="utf-8-sig", errors="replace", newline="")
        try:
            for line, values in elements(text, MAX_ROW):
                self._last_line = line
                yield from self._checked(line, values)
        except ValueError as error:
            self._last_line = max(self._last_line, getattr(error, "lineno", 1) - 1)
            self._broken(f"the JSON array breaks off: {error}")
            raise _Incomplete from None

    def _checked(self, line: int, values: Any) -> Iterator[Row]:
        if not isinstance(values, dict):
            self._reject(Reject(self.name, line, "the row is not a JSON object", excerpt(values)))
        elif _deeper_than(values, _MAX_DEPTH):
            self._reject(Reject(self.name, line, f"the row is nested deeper than {_MAX_DEPTH} levels"))
        else:
            yield Row(line, values)

    def _lines(self, raw: IO[bytes]) -> Iterator[bytes]:
        """Lines with their ends, without a byte order mark; of one longer than :data:`MAX_ROW` the beginning only."""
        stream = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if self._gzipped else raw
        mark = codecs.BOM_UTF8
        while line := stream.readline(MAX_ROW + 1):
            rest = line
            while len(rest) > MAX_ROW and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_ROW + 1)
            yield line.removeprefix(mark)
            mark = b""

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            if not self._noticed_encoding:
                self._noticed_encoding = True
                self._notice(f"{self.path} holds lines that are not UTF-8: they are read as Windows-1252 (Latin-1)")
            return line.decode("cp1252", "replace")

    def _read_csv(self, raw: IO[bytes]) -> Iterator[Row]:
        head = self._head()
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            lines: Iterable[str] = io.TextIOWrapper(self._bytes(raw), encoding="utf-16", errors="replace", newline="")
            delimiter = _delimiter(head.decode("utf-16", "replace"))
        else:
            lines = map(self._decode, self._lines(raw))
            delimiter = _delimiter(head.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace"))
        csv.field_size_limit(MAX_ROW)
        rows = csv.reader(lines, delimiter=delimiter)
        header: list[str] = []
        while True:
            line = rows.line_num + 1
            self._last_line = rows.line_num
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                self._reject(Reject(self.name, line, f"not CSV: {error}"))
                continue
            if not any(cells):
                continue
            if not header:
                header = _header(cells)
                continue
            if len(cells) > len(header) and any(cells[len(header) :]):
                reason = f"{len(cells)} cells, but the header names {len(header)}"
                self._reject(Reject(self.name, line, reason, excerpt(cells)))
                continue
            if len(cells) < len(header):
                reason = f"{len(cells)} cells only, but the header names {len(header)}"
                self._reject(Reject(self.name, line, reason, excerpt(cells)))
                continue
            yield Row(line, dict(zip(header, cells, strict=False)), typed=False)

    def _read_parquet(self, raw: IO[bytes]) -> Iterator[Row]:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise ConfigurationError(
                f"{self.path}: reading Parquet needs pyarrow: pip install 'endcap[parquet]'"
            ) from None
        line = 0
        try:
            for batch in ParquetFile(raw).iter_batches(batch_size=_PARQUET_BATCH):
                for values in batch.to_pylist():
                    line += 1
                    self._last_line = line
                    yield from self._checked(line, values)
        except ArrowException as error:
            self._broken(f"the Parquet file is damaged: {str(error).splitlines()[0][:200]}")
            raise _Incomplete from None


class _Incomplete(EOFError):
    """The file broke off and that has been reported."""


_EXTENSIONS = {
    "jsonl": {".jsonl", ".ndjson", ".json"},
    "csv": {".csv", ".tsv", ".txt"},
    "parquet": {".parquet", ".pq"},
}


def _deeper_than(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_deeper_than(one, levels - 1) for one in inner if isinstance(one, (dict, list)))


def _delimiter(head: str) -> str:
    """The separator that cuts the most of the first rows into the same number of cells, then into the most cells."""
    counts = {}
    for candidate in ",;\t|":
        rows = list(csv.reader(io.StringIO(head.replace("\0", ""), newline=""), delimiter=candidate))
        widths = [len(row) for row in rows[: max(1, min(50, len(rows) - 1))] if row] or [0]  # the last may be cut off
        same = sum(width == widths[0] for width in widths) / len(widths)
        counts[candidate] = (widths[0] > 1, round(same, 1), widths[0])
    return max(counts, key=lambda one: counts[one])


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() or f"column_{n + 1}" for n, cell in enumerate(cells)]
    seen: dict[str, int] = {}
    for n, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[n] = f"{name}_{seen[name]}"
    return names
