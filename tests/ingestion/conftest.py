"""Property tests of this folder: no deadline (nothing here asserts speed), and a size that keeps the suite quick."""

import pytest
from hypothesis import HealthCheck, settings

from ingestion.formats import limits
from tests.ingestion.s3_server import bucket, s3_endpoint

__all__ = ["bucket", "s3_endpoint"]

settings.register_profile("suite", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that a small file has many chunks."""
    monkeypatch.setattr(limits, "BLOCK_BYTES", 100)
