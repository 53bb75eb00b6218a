"""Reads product files as products: format, roles, checks and rejects in one stream."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from endcap.catalog.keys import KeySet
from endcap.catalog.product import Product, product_key
from endcap.catalog.readers import CatalogFile, OnNotice, Row
from endcap.catalog.rejects import OnReject, Reject, excerpt
from endcap.catalog.roles import Roles, find_roles, flatten
from endcap.catalog.rows import RowReader
from endcap.catalog.values import Unusable
from endcap.errors import InvalidInput

#: Rows looked at before the first product is made.
SAMPLE_ROWS = 200
_SAMPLE_CHARACTERS = 4_000_000
#: Products whose line is remembered, for what the engine refuses later. More than a pipeline ever holds.
_REMEMBERED = 50_000


class CatalogReader:
    """Products, or partial changes, of some files, in order. Iterate once, over one of the two.

    ``rows`` counts rows read, ``usable`` those given out, ``duplicates`` ids that came again (the last one wins).
    ``seen`` holds the key of every id in the files, those of rejected rows included. ``complete``: every file was read
    to its end; ``failures`` says what is wrong with files that could not be read as products at all.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        explicit_roles: Mapping[str, str],
        category_separator: str,
        on_reject: OnReject,
        on_notice: OnNotice = lambda notice: None,
    ) -> None:
        """Open the files.

        Raises:
            InvalidInput: one of them cannot be read at all.
        """
        self._reject_row = on_reject
        self._notice = on_notice
        self.files = [CatalogFile(path, on_reject, on_notice) for path in paths]
        self._explicit = explicit_roles
        self._separator = category_separator
        self.rows = 0
        self.usable = 0
        self.duplicates = 0
        self.failures: list[str] = []
        self.seen = KeySet()
        self.notices: Counter[str] = Counter()
        self._lines: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._done_bytes = 0
        self._current: CatalogFile | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._done_bytes + (self._current.position if self._current else 0)

    @property
    def complete(self) -> bool:
        """Whether every file was read to its end."""
        return all(file.complete for file in self.files)

    def products(self) -> Iterator[Product]:
        """Every row that can become a product."""
        for file, reader, row in self._mapped():
            try:
                product = reader.product(row.values)
            except Unusable as error:
                self._reject(file, reader, row, str(error))
                continue
            self._remember(product.id, file, row)
            yield product

    def changes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every row as a partial change: (id, changed fields)."""
        for file, reader, row in self._mapped():
            try:
                product_id, changes = reader.changes(row.values)
            except Unusable as error:
                self._reject(file, reader, row, str(error))
                continue
            self._remember(product_id, file, row)
            yield product_id, changes

    def roles(self) -> list[tuple[CatalogFile, Roles, list[Row]]]:
        """Each file's roles, and the rows they were guessed from.

        Raises:
            InvalidInput: a file has no field that could be the id.
        """
        return [(file, self._roles(file, rows), rows) for file in self.files if (rows := _sample(iter(file)))]

    def refused(self, product_id: str, reason: str) -> None:
        """Report a product that the engine refused, with the line it came from."""
        file, line = self._lines.get(product_id, ("", 0))
        self._reject_row(Reject(file, line, f"the engine refused it: {reason}", product_id))

    def _mapped(self) -> Iterator[tuple[CatalogFile, RowReader, Row]]:
        for file in self.files:
            self._current = file
            rows = iter(file)
            sample = _sample(rows)
            if sample:
                try:
                    roles = self._roles(file, sample)
                except InvalidInput as error:  # the other files are not to blame
                    file.complete = False
                    self.failures.append(str(error))
                    self._reject_row(Reject(file.name, 1, str(error)))
                    continue
                flat = [flatten(row.values) for row in sample]
                reader = RowReader(roles, flat, self._separator, sample[0].typed)
                for row in chain(sample, rows):
                    self.rows += 1
                    yield file, reader, row
                self.notices.update(reader.notices)
            self._current = None
            self._done_bytes += file.size

    def _roles(self, file: CatalogFile, sample: list[Row]) -> Roles:
        try:
            return find_roles([flatten(row.values) for row in sample], self._explicit)
        except InvalidInput as error:
            raise InvalidInput(f"{file.path}: {error}") from None

    def _remember(self, product_id: str, file: CatalogFile, row: Row) -> None:
        self.usable += 1
        if not self.seen.add(product_key(product_id)):
            self.duplicates += 1
        self._lines[product_id] = (file.name, row.line)
        if len(self._lines) > _REMEMBERED:
            self._lines.popitem(last=False)

    def _reject(self, file: CatalogFile, reader: RowReader, row: Row, reason: str) -> None:
        try:
            self.seen.add(product_key(reader.product_id(flatten(row.values))))
        except Unusable:
            pass
        self._reject_row(Reject(file.name, row.line, reason, excerpt(row.values)))


def _sample(rows: Iterator[Row]) -> list[Row]:
    """The first rows, bounded in number and in size."""
    sample: list[Row] = []
    characters = 0
    for row in rows:
        sample.append(row)
        characters += sum(len(value) for value in row.values.values() if isinstance(value, (str, list)))
        if len(sample) >= SAMPLE_ROWS or characters > _SAMPLE_CHARACTERS:
            break
    return sample
