"""`manage.py watch`: folders and buckets whose files are loaded as they come."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from ingestion import watching
from ingestion.models import WatchedSource


class Command(BaseCommand):
    help = "Lists watched folders and buckets; with PATH adds one. Beat has them looked at every minute."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", nargs="?", metavar="PATH", help="a folder, a quoted pattern or s3://bucket/prefix/")
        parser.add_argument(
            "--source", default="", metavar="NAME", help="the name under which its files belong together"
        )
        parser.add_argument("--off", action="store_true", help="keep PATH in the list and look at it no more")
        parser.add_argument("--remove", action="store_true", help="forget PATH; what was loaded stays")
        parser.add_argument("--look", action="store_true", help="look now, where no beat runs")

    def handle(self, *args: Any, **options: Any) -> None:
        path = options["path"]
        if path and options["remove"]:
            if not WatchedSource.objects.filter(path=path).delete()[0]:
                raise CommandError(f"{path} is not watched. `manage.py watch` lists what is.", returncode=2)
            self.stdout.write(f"{path} is watched no more.")
        elif path:
            wanted = {"source": options["source"], "enabled": not options["off"]}
            WatchedSource.objects.update_or_create(path=path, defaults=wanted)
            self.stdout.write(f"{path} is {'kept, and not looked at' if options['off'] else 'watched'}.")
        if options["look"]:
            looked = watching.look_at_all(now=timezone.now())
            self.stdout.write(
                f"{looked.files:,} files, {looked.taken:,} given to the workers, {looked.waiting:,} wait."
            )
        if not path:
            for one in WatchedSource.objects.all():
                when = one.looked_at.strftime("%Y-%m-%d %H:%M") if one.looked_at else "never"
                state = "" if one.enabled else " (off)"
                error = f"  {one.error_code}: {one.error}" if one.error_code else ""
                self.stdout.write(f"{one.path}{state}  source '{one.source}', last look {when}{error}")
