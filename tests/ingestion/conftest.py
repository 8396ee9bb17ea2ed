"""Property tests of this folder: no deadline (nothing here asserts speed), and a size that keeps the suite quick."""

from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
