"""Loading files into the store that customers search."""

from django.apps import AppConfig


class IngestionApp(AppConfig):
    name = "ingestion"
    verbose_name = "Ingestion"
