"""A network of the shop's own for search by photo: the packaged one, trained on labelled photos."""
