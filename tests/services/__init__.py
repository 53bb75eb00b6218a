"""Real servers for tests, without containers.

``python -m tests.services.install`` fetches what is missing. Each server is a module with ``start() -> (Server, url)``
that raises :class:`~tests.services.process.ServiceMissing` where something is not installed; ``fixtures.py`` turns it
into a session fixture, ``tests/conftest.py`` names the fixture and the marker that its users get. A further server
(Triton, say) is one more such module, fixture and line in ``MARKERS``; ``install.py`` gets a step that fetches it.
"""
