"""`manage.py create_operator`: somebody who may enter the operator admin."""

import getpass
import json
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import services
from accounts.models import User
from config.errors import DomainError


class Command(BaseCommand):
    help = (
        "Creates an operator. Example: manage.py create_operator --email ops@example.com "
        "(asks for the password, or takes it from OPERATOR_PASSWORD)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--email", required=True)
        parser.add_argument("--password", help="Better: the environment variable OPERATOR_PASSWORD, or the prompt.")
        parser.add_argument("--if-missing", action="store_true", help="Succeed quietly when the user exists already.")
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["if_missing"] and (known := User.objects.filter(email__iexact=options["email"]).first()):
            self._report(known, created=False, as_json=options["json"])
            return
        password = options["password"] or os.environ.get("OPERATOR_PASSWORD") or getpass.getpass("Password: ")
        try:
            user = services.create_operator(email=options["email"], password=password)
        except DomainError as error:
            raise CommandError(error.message) from error
        self._report(user, created=True, as_json=options["json"])

    def _report(self, user: User, *, created: bool, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps({"id": str(user.pk), "email": user.email, "created": created}))
        else:
            self.stdout.write(f"Operator {user.email} {'created' if created else 'exists already'}.")
