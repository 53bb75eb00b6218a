"""The concrete indices behind the alias: which one serves, making one, switching without a gap.

An index made by Endcap has a name of its own and says so in its mapping; the alias is what everyone uses. Anything else
that bears the alias's name is someone's own and is never touched.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from elasticsearch import ApiError, Elasticsearch, NotFoundError, TransportError

from endcap.engines.elasticsearch.connection import error_type, foreign, reason_of
from endcap.engines.elasticsearch.mapping import IndexMeta, concrete_name, index_body
from endcap.errors import ConfigurationError, EngineError, IndexBusy, UnknownIndex

logger = logging.getLogger(__name__)

#: Seconds between the switch and the removal of the old index: searches under way may still be reading it.
DRAIN_S = 1.0
#: A rebuild that is not finished after so long has died; the next one removes what it left.
ABANDONED_S = 86_400.0
#: A rebuild that has said nothing for so long has died: the index may be written again.
HOLD_S = 120.0
_ATTEMPTS = 3


class Indices:
    """The alias ``alias`` and what stands behind it."""

    def __init__(self, client: Elasticsearch, alias: str, analyzer: str) -> None:
        self._client = client
        self.alias = alias
        self._analyzer = analyzer

    def serving(self) -> tuple[str, IndexMeta] | None:
        """The concrete index behind the alias and its own word on itself; None where there is none.

        Raises:
            ConfigurationError: the name belongs to something that Endcap did not make.
        """
        try:
            found = self._client.indices.get(index=self.alias)
        except NotFoundError as error:
            # The client checks successful answers only; on others' servers nothing may be made.
            if error.meta.headers.get("x-elastic-product") != "Elasticsearch":
                raise foreign() from None
            return None
        if len(found) > 1:
            raise ConfigurationError(
                f"index: the alias [{self.alias}] leads to {len(found)} indices ({', '.join(sorted(found))}); Endcap "
                "needs one of its own: choose another name"
            )
        name, entry = next(iter(found.items()))
        meta = IndexMeta.from_mapping(entry.get("mappings", {}))
        if meta is None or meta.index != self.alias or name == self.alias:
            what = "an index" if name == self.alias else f"an alias of [{name}]"
            raise ConfigurationError(
                f"index: [{self.alias}] is {what} that Endcap did not make, and it will not be touched: choose another "
                "name for Endcap's own products"
            )
        return name, meta

    def create(self, meta: IndexMeta, *, live: bool) -> str:
        """Make an index; ``live``: behind the alias at once. Gives its name.

        Raises:
            ConfigurationError: the analyzer is not known to the server.
            FileExistsError: ``live``, and another process was quicker.
        """
        body, name = index_body(meta, self._analyzer), concrete_name(self.alias)
        if live:
            # An alias has one write index at most: of two processes that make one at once, one fails here.
            body["aliases"] = {self.alias: {"is_write_index": True}}
        else:
            body["settings"]["refresh_interval"] = "-1"
        try:
            self._client.indices.create(index=name, **body)
        except ApiError as error:
            reason = reason_of(error.body)
            if "more than one write index" in reason or error_type(error.body) == "invalid_alias_name_exception":
                raise FileExistsError(self.alias) from None
            if "analyzer" in reason and self._analyzer in reason:
                raise ConfigurationError(f"analyzer: the server does not know {self._analyzer!r} ({reason})") from error
            raise
        return name

    def hold(self, name: str, meta: IndexMeta) -> IndexMeta:
        """Have nothing written to an index while another one is filled to take its place: it would be lost. Ends by
        itself after :data:`HOLD_S`, unless it is said again.

        Raises:
            IndexBusy: somebody else holds it.
        """
        self.check_free(meta)
        held = replace(meta, held_until=time.time() + HOLD_S)
        self._client.indices.put_mapping(index=name, meta=held.to_mapping())
        # Answers when writes under way have ended, in every process.
        self._client.indices.add_block(index=name, block="write")
        return held

    def go_on_holding(self, name: str, meta: IndexMeta) -> None:
        """Say it again."""
        meta = replace(meta, held_until=time.time() + HOLD_S)
        self._client.options(ignore_status=404).indices.put_mapping(index=name, meta=meta.to_mapping())

    def release(self, name: str, meta: IndexMeta) -> None:
        """Let it be written again."""
        here = self._client.options(ignore_status=404).indices
        here.put_settings(index=name, settings={"index.blocks.write": None})
        here.put_mapping(index=name, meta=replace(meta, held_until=0.0).to_mapping())

    def release_abandoned(self) -> None:
        """After a write was refused: let it be written again where whoever held it has died.

        Raises:
            IndexBusy: he lives.
        """
        found = self.serving()
        if found is None:
            raise self.unknown()
        self.check_free(found[1])
        if found[1].held_until:
            logger.warning("%s was held by a rebuild that has died", found[0])
            self.release(*found)

    def check_free(self, meta: IndexMeta) -> None:
        """Raises IndexBusy where another index is being filled to take this one's place."""
        if meta.held_until > time.time():
            raise IndexBusy(f"index [{self.alias}] is being rebuilt: changes can be made once that is done")

    def switch(self, name: str, meta: IndexMeta, instead_of: str) -> None:
        """Make all of ``name`` visible, put the alias on it in one step and remove the index that it was on.

        Args:
            instead_of: what served when the filling began; empty: nothing did.

        Raises:
            IndexBusy: another index with products has taken its place since; they would be lost.
            EngineError: the index was removed meanwhile, or other processes kept switching the alias.
        """
        found = self._client.options(ignore_status=404).indices.get_mapping(index=name).get(name, {})
        if IndexMeta.from_mapping(found.get("mappings", {})) is None:
            # Writing to it may have made it anew, without its mapping.
            raise EngineError(f"[{name}] was removed while it was being filled: start again", status=409)
        self._client.indices.refresh(index=name)
        self._client.indices.put_settings(index=name, settings={"index": {"refresh_interval": None}})
        old = self._switch(name, instead_of)
        self._client.indices.put_mapping(index=name, meta=replace(meta, filling=False).to_mapping())
        if old:
            time.sleep(DRAIN_S)
            try:
                self.drop(old)
            except (ApiError, TransportError) as error:
                # The new one serves: that the old one is still there must not undo it.
                logger.warning("%s serves no more, but could not be removed: %s", old, error)

    def _switch(self, name: str, instead_of: str) -> str:
        for attempt in range(1, _ATTEMPTS + 1):
            old = self.serving()
            if old and old[0] != instead_of and self._holds_products(old[0]):
                raise IndexBusy(
                    f"another rebuild of [{self.alias}] was done first, and what has been written since would be lost: "
                    "start again"
                )
            actions: list[dict[str, Any]] = [{"add": {"index": name, "alias": self.alias, "is_write_index": True}}]
            if old:
                actions.append({"remove": {"index": old[0], "alias": self.alias, "must_exist": True}})
            try:
                self._client.indices.update_aliases(actions=actions)
                return old[0] if old else ""
            except ApiError as error:
                if attempt == _ATTEMPTS or error.status_code not in (400, 404, 500):
                    raise
        raise AssertionError("unreachable")

    def _holds_products(self, name: str) -> bool:
        self._client.indices.refresh(index=name)
        return bool(self._client.count(index=name)["count"])

    def discard(self, name: str) -> None:
        """Remove an index that was to serve, unless it does already."""
        serving = self.serving()
        if serving is None or serving[0] != name:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Remove an index that Endcap made; nothing happens where it is gone."""
        self._client.options(ignore_status=404).indices.delete(index=name)

    def sweep(self) -> None:
        """Remove what rebuilds of more than a day ago left unfinished."""
        found = self._client.indices.get(index=f"{self.alias}-*")
        for name, entry in found.items():
            meta = IndexMeta.from_mapping(entry.get("mappings", {}))
            if meta is None or meta.index != self.alias or not meta.filling or entry.get("aliases"):
                continue
            made = float(entry["settings"]["index"]["creation_date"]) / 1000
            if time.time() - made > ABANDONED_S:
                logger.warning("removing %s, left unfinished by a rebuild that died", name)
                self.drop(name)

    def unknown(self) -> UnknownIndex:
        """The error for an index that is not there."""
        return UnknownIndex(f"there is no index [{self.alias}] yet: `endcap index` makes it")
