"""Loading files into the store that customers search."""

from django.apps import AppConfig

from config.metrics import add_figures


class IngestionApp(AppConfig):
    name = "ingestion"
    verbose_name = "Ingestion"

    def ready(self) -> None:
        from ingestion.figures import of_jobs  # models can be imported only now

        add_figures(of_jobs)
