"""A linear map from content to embedding: what least squares finds, and what a recommender itself says of content."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from endcap_workers.augmentation.base import Content, ContentNetwork
from endcap_workers.models.base import UNKNOWN, ProductEncoder


class LinearNetwork(ContentNetwork):
    """The sum of a vector for each code, a linear map of the text vector, and a constant."""

    def __init__(self, sizes: tuple[int, ...], content: int, width: int, norm: float) -> None:
        super().__init__(width, norm)
        self.codes = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.content = nn.Linear(content, width, bias=False) if content else None
        self.constant = nn.Parameter(torch.zeros(width))

    def generate(self, codes: Tensor, vectors: Tensor) -> Tensor:
        total = self.constant if self.content is None else self.constant + self.content(vectors)
        for column, table in enumerate(self.codes):
            total = total + table(codes[..., column])
        return total


def own_words(encode: ProductEncoder, content: int) -> LinearNetwork | None:
    """What a recommender says of a product that it has never seen, before lengths are made equal; None where it reads
    nothing of it. ``content``: width of the vectors, of which the recommender may read the first alone."""
    if not encode.codes and encode.content is None:
        return None
    sizes = tuple(len(table.weight) for table in encode.codes if isinstance(table, nn.Embedding))
    network = LinearNetwork(sizes, content, encode.product.embedding_dim, 0.0)
    with torch.no_grad():
        for mine, theirs in zip(network.codes, encode.codes, strict=True):
            assert isinstance(mine, nn.Embedding)
            assert isinstance(theirs, nn.Embedding)
            mine.weight.copy_(theirs.weight)
        if network.content is not None:
            network.content.weight.zero_()
            if encode.content is not None:
                network.content.weight[:, : encode.content.in_features] = encode.content.weight
        network.constant.copy_(encode.product.weight[UNKNOWN])
    return network


def forget_unseen(tables: nn.ModuleList, content: Content) -> None:
    """Codes that no product of ``content`` has count as unknown: their vectors, which nothing has taught, become 0."""
    with torch.no_grad():
        for column, table in enumerate(tables):
            assert isinstance(table, nn.Embedding)
            unseen = torch.ones(len(table.weight), dtype=torch.bool)
            unseen[torch.from_numpy(content.codes[:, column])] = False
            table.weight[unseen] = 0.0
