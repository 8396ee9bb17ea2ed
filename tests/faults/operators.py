"""What operators do while customers ask: keys change, credits are given for a while and taken back."""

import itertools
import random
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone
from redis.exceptions import RedisError

from accounts import services
from accounts.models import Account
from accounts.revocation import revoke_key
from config.errors import DomainError
from credits.decreases import deduct
from credits.models import CreditGrant
from credits.services import top_up
from tests.faults.customers import Customer, public_id
from tests.faults.evidence import Revoked, ToppedUp

_AWAY = (DatabaseError, RedisError, DomainError)
_FIRST = [0, 400, 400, 700, 5_000, 100_000, 1_000_000, 1_000_000]
_MORE = [0, 200, 300, 500, 500, 0, 0, 0]
LIFE = timedelta(seconds=4)


class Operators:
    """Changes accounts past the HTTP interface, as the admin's forms and commands do, and notes what was confirmed."""

    def __init__(self) -> None:
        self.topped_up: list[ToppedUp] = []
        self.revoked: list[Revoked] = []
        self._pending: list[tuple[str, bool]] = []  # key, whether PostgreSQL knows
        self._names = itertools.count()

    def make_customers(self) -> list[Customer]:
        """One without credits, some that top up all the time, some with more than they can spend."""
        made = []
        for first, more in zip(_FIRST, _MORE, strict=True):
            account = services.create_customer(name="Alice & Co", email=f"alice-{uuid.uuid4().hex}@example.com")
            made.append(Customer(account.number, [services.issue_key(account=account, rpm=0).api_key], topped_up=more))
            if first:
                self._top_up(account, first)
        return made

    def do_something(self, customers: Sequence[Customer], chance: random.Random) -> None:
        """One act, on a customer taken at random; a store that is away makes it an attempt."""
        customer = chance.choice(customers)
        act = chance.choice([self._replace_key, self._give_for_a_while, self._take_back])
        try:
            act(customer, chance)
        except _AWAY:
            return
        finally:
            connection.close()

    def settle_pending(self, *, redis_lost_data: bool) -> None:
        """Once nothing moves, revocations that one store alone knew hold as well, unless it was Redis and it lost its data."""
        held = [key for key, known in self._pending if known or not redis_lost_data]
        self.revoked += [Revoked(key, time.time()) for key in held]
        self._pending.clear()

    def _top_up(self, account: Account, amount: int, *, brief: bool = False) -> None:
        reference = f"o{next(self._names)}"
        now = timezone.now()
        try:
            top_up(
                account=account,
                amount=amount,
                now=now,
                reason=reference,
                kind=CreditGrant.Kind.PROMO if brief else CreditGrant.Kind.PURCHASE,
                expires_at=now + LIFE if brief else None,
            )
        except _AWAY:
            self.topped_up.append(ToppedUp(reference, account.number, amount, "lost"))
            raise
        self.topped_up.append(ToppedUp(reference, account.number, amount, "answered"))

    def _replace_key(self, customer: Customer, chance: random.Random) -> None:
        account = Account.objects.get(number=customer.number)
        old = customer.keys[-1]
        customer.keys.append(services.issue_key(account=account, rpm=0).api_key)
        customer.ended.append(old)
        revocation = revoke_key(public_id=public_id(old), now=timezone.now(), actor="operator")
        if revocation.pending:
            self._pending.append((public_id(old), "postgres" in revocation.known_by))
        else:
            self.revoked.append(Revoked(public_id(old), time.time()))

    def _give_for_a_while(self, customer: Customer, chance: random.Random) -> None:
        self._top_up(Account.objects.get(number=customer.number), chance.randint(50, 500), brief=True)

    def _take_back(self, customer: Customer, chance: random.Random) -> None:
        account = Account.objects.get(number=customer.number)
        deduct(account=account, amount=chance.randint(1, 60), reason="Correction", actor="operator", now=timezone.now())
