"""Where things are kept, and what the shop's catalogue is."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, field_validator


class Places(BaseModel):
    """Where things are kept, and what the shop's catalogue is."""

    # Where things are kept
    data_dir: Path = Field(Path(".endcap"), description="Folder of the embedded index, the event log and the models.")
    database_url: str = Field("", description="SQLAlchemy URL of the event log; empty: SQLite in the data folder.")
    database_statement_timeout_s: float = Field(
        10.0,
        ge=0,
        description="PostgreSQL gives up a server's statement after so many seconds; 0: as it is set itself. "
        "Jobs and commands are exempt.",
    )
    database_lock_timeout_s: float = Field(
        3.0, ge=0, description="As above, for waiting for a lock that somebody else holds."
    )
    redis_url: str = Field(
        "", description="Redis: profiles shared by all server processes, and the broker of Celery; empty: none."
    )
    triton_url: str = Field("", description="Triton's gRPC address (host:port); empty: score in process.")
    triton_repository: str = Field("", description="Triton's model repository, where `endcap publish` writes to it.")
    triton_device: str = Field(
        "gpu",
        pattern="^(gpu|cpu|python)$",
        description="What Triton runs published models on; `python`: a server that has the python backend only.",
    )
    model_dir: str = Field("", description="Folder of the model bundles; empty: `models` in the data folder.")

    # The search engine
    engine_url: str = Field("", description="Elasticsearch or OpenSearch URL; empty: the embedded engine.")
    engine_api_key: SecretStr = Field(SecretStr(""), description="API key for Endcap's own calls to the engine.")
    engine_username: str = Field("", description="User name for Endcap's own calls, where no API key is used.")
    engine_password: SecretStr = Field(SecretStr(""), description="Password that goes with the user name.")
    engine_ca_file: str = Field("", description="CA bundle that the engine's certificate is checked against.")
    engine_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for the engine.")
    engine_connections: int = Field(32, ge=1, description="Pooled connections to the engine, per server process.")
    index: str = Field("products", description="Index (or alias) that holds the products.")
    searchable_indices: list[str] = Field(
        default_factory=list, description="Indices that may be searched through the hook; empty: only `index`."
    )
    personalized_indices: list[str] = Field(
        default_factory=list, description="Indices whose hits are products and are reordered; empty: only `index`."
    )
    analyzer: str = Field(
        "standard",
        description="Text analyzer of an index that Endcap makes on Elasticsearch, such as a language's: `german`. The "
        "embedded engine strips that language's endings, English ones where it is none's. Rebuild after a change.",
    )
    compounds: str = Field(
        "auto",
        pattern="^(auto|on|off)$",
        description="Find compounds by their last part (Kocher: Wasserkocher), as the titles' own words tell: `auto` "
        "where `analyzer` is of a language that writes them as one word.",
    )
    source_index: str = Field(
        "", description="The shop's own index, where `index` is Endcap's copy of its products (`endcap attach`)."
    )
    source_vector_field: str = Field(
        "",
        description="Field of `source_index` that vectors are written into as well, for kNN queries of the shop's own; "
        "empty: none, and the index is only read.",
    )
    index_place: str = Field(
        "auto",
        pattern="^(auto|engine|embedded)$",
        description="Where `index` is kept: at `engine_url`, or `embedded` in the data folder while the hook stands in "
        "front of `engine_url`; `auto`: at `engine_url` where that is set.",
    )
    synonyms_file: str = Field(
        "", description="Synonyms in Solr's format (`tv, television`; `telly => tv`), beside those of the admin API."
    )

    # The catalogue
    field_roles: dict[str, str] = Field(
        default_factory=dict,
        description="Role -> field of the shop's rows (id, title, description, brand, category, price, stock, image, "
        "url); a category may be several fields, `department,aisle`. What is not named is guessed; other fields become "
        "attributes.",
    )
    catalogue_files: list[str] = Field(
        default_factory=list,
        description="Files (or patterns such as `/feeds/*.csv`) that the job `reindex` reads; empty: what the index "
        "holds is encoded anew.",
    )
    category_separator: str = Field(" > ", description="Between the levels of a category path in one string.")
    text_encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="Hub id or folder of a sentence-transformers model, or `package:NAME` for one inside an installed "
        "package; `use-multilingual` for the packaged ONNX model; `none` for keyword search only.",
    )
    augmentation: bool = Field(
        True,
        description="Score products that nobody has bought by the embedding that the live model's generator makes of "
        "their content; also whether the job `augment` trains one.",
    )
    image_encoder: str = Field(
        "sentence-transformers/clip-ViT-B-32",
        description="For search by photo (`endcap photos`): hub id or folder of a CLIP model of sentence-transformers; "
        "`efficientnet-lite0` for the packaged one; folder of a network that `endcap train-photos` made; `none`.",
    )
    image_hosts: list[str] = Field(
        default_factory=list,
        description="Hosts that pictures may be fetched from (`cdn.shop.example`), the products' and the shoppers'.",
    )
    image_dir: str = Field("", description="Folder of product pictures that are named by a path instead of a URL.")
    max_image_bytes: int = Field(10_000_000, ge=1_000, description="Largest picture that is read.")
    photo_searches: int = Field(
        8,
        ge=1,
        description="Searches by photo under way at once per server process, never more than half of `server_threads`: "
        "slow pictures must not keep other searches waiting. More are refused with 503.",
    )
    product_refresh_s: float = Field(5.0, gt=0, description="Seconds between looks for changed products.")

    @field_validator("engine_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")
