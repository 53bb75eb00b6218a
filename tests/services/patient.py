"""HTTP for tests' own errands at a server: a cold one on a busy machine takes longer than urllib3's default allows."""

from __future__ import annotations

import urllib3

request = urllib3.PoolManager(timeout=urllib3.Timeout(90.0)).request
