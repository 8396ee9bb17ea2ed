"""The rules of validation, cleansing and identity, once: `normalise` is the same function for every engine."""

from ingestion.cleansing.normalise import CLEAN_SCHEMA, REJECTED_SCHEMA, normalise

__all__ = ["CLEAN_SCHEMA", "REJECTED_SCHEMA", "normalise"]
