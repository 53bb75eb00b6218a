"""What can be wrong with a picture."""

from __future__ import annotations

from endcap.errors import EndcapError


class InvalidImage(EndcapError):
    """The bytes are no image that can be searched by."""

    status = 422
    kind = "invalid_image"


class ImageUnavailable(EndcapError):
    """The picture's host does not give it now."""

    status = 502
    kind = "image_unavailable"


class NoPhotos(EndcapError):
    """There is no index of pictures that can be searched."""

    status = 409
    kind = "no_photos"


class PhotosBusy(EndcapError):
    """As many searches by photo are under way as may be; a later try may find room."""

    status = 503
    kind = "photos_busy"
