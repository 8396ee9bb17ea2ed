"""`manage.py check_templates`: compiles every template of the project, so that a typo does not wait for its page."""

from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.template import TemplateSyntaxError, engines


class Command(BaseCommand):
    help = "Compiles every template of the project and reports those that do not. Example: manage.py check_templates"
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        engine = engines["django"]
        failures: list[str] = []
        paths = [
            path
            for folder in cast("list[Path]", settings.TEMPLATES[0]["DIRS"])
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and path.suffix in {".html", ".txt"}
        ]
        for path in paths:
            try:
                engine.from_string(path.read_text())
            except TemplateSyntaxError as error:
                failures.append(f"{path}: {error}")
        if failures:
            raise CommandError("\n".join(failures))
        self.stdout.write(f"{len(paths)} templates compile.")
