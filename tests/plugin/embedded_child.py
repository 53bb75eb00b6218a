"""A process that writes to an embedded index until it is killed: ``python embedded_child.py FOLDER DOING``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from endcap.catalog.product import Product
from endcap.engines.embedded import EmbeddedEngine

DIMS = 16
PER_ROUND = 20


def vector_of(seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal(DIMS).astype(np.float32)
    return made / np.linalg.norm(made)


def write_rounds(engine: EmbeddedEngine) -> None:
    """Each round adds products, changes one and deletes one, then refreshes and says so."""
    (counter,) = engine.get(["counter"])
    first = int((counter or {"price": -1})["price"]) + 1
    for round_ in range(first, 10_000):
        engine.upsert([(Product("counter", "Counter", price=float(round_)), vector_of(round_), str(round_))])
        names = [f"r{round_}-{number}" for number in range(PER_ROUND)]
        engine.upsert([(Product(one, f"Round {round_}"), vector_of(round_), "d") for one in names])
        engine.update([(names[0], {"stock": float(round_)})])
        engine.delete([names[1]])
        engine.refresh()
        print(round_, flush=True)


def main() -> None:
    engine = EmbeddedEngine(Path(sys.argv[1]), "products")
    doing = sys.argv[2]
    if doing == "rounds":
        engine.ensure(DIMS, "encoder")
        write_rounds(engine)
    elif doing == "rebuild":
        with engine.rebuild(DIMS, "another") as new:
            new.upsert((Product(f"new{number}", "New"), vector_of(number), "d") for number in range(500))
            print("filled", flush=True)
            time.sleep(600)
    elif doing == "hold":
        engine.upsert([(Product("uncommitted", "Held"), None, "")])
        print("holding", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()
