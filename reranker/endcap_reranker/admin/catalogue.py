"""The catalogue as the server knows it, and indexing it anew."""

from __future__ import annotations

from pydantic import Field

from endcap.jobs import load_jobs
from endcap.runtime import Runtime
from endcap.stores.runs import Runs
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Strict, Topic
from endcap_reranker.admin.runs import RunAnswer, known_job, run_answer


class CatalogueAnswer(Answer):
    """The catalogue."""

    engine: str
    index: str
    products: int = Field(description="In the index now.")
    loaded: int = Field(description="That this server process ranks with; follows within `product_refresh_s`.")
    encoder: str = Field(description="Of the content vectors; empty: keyword search only.")
    problem: str = Field(description="Why the products could not be read last time; empty where they could.")


class ReindexBody(Strict):
    """How to index."""

    rebuild: bool = Field(
        False, description="Fill a new index while the old one serves, then switch; needed for another text encoder."
    )
    delete_missing: bool = Field(False, description="Delete products that are not in the files (`catalogue_files`).")


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("catalogue", "The catalogue as a whole.")
    settings = runtime.settings
    runs = Runs(runtime.database, settings.worker_lease_s, settings.run_attempts)

    @topic.operation("GET", "/catalogue", role="reader", summary="What is indexed, and how.", answer=CatalogueAnswer)
    def get_catalogue() -> CatalogueAnswer:
        return CatalogueAnswer(
            engine=runtime.engine.name,
            index=settings.index,
            products=runtime.engine.count(),
            loaded=len(runtime.personalizer.table or ()),
            encoder=runtime.encoder.id if runtime.encoder else "",
            problem=runtime.upkeep.problems.get("products", ""),
        )

    @topic.operation(
        "POST", "/catalogue/reindex", role="operator", summary="Index the catalogue anew.", body=ReindexBody,
        answer=RunAnswer, status=202, errors=(404,),
    )  # fmt: skip
    def reindex_catalogue(body: ReindexBody) -> RunAnswer:
        """From the files of the setting `catalogue_files`; where there are none, what the index holds is encoded anew.
        The same as starting the job `reindex`."""
        job = known_job(load_jobs(), "reindex")
        return run_answer(runs.get(runs.submit(job, body.model_dump(), caller().name)))

    return topic
