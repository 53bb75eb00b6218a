"""Product photos: reading and fetching them safely, encoding them, finding the nearest. Needs the extra `images`."""
