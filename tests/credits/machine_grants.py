"""Steps of the protocol machine that refund charges and schedule grants; `verify` tells after each whether C1 holds."""

import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import rule

from config.errors import InvalidRequest
from credits import refunds, services
from credits.models import CreditGrant, CreditTransaction, Refund
from tests.factories import Customer


class GrantSteps:
    """Mixed into the machine, which has the `customer`."""

    customer: Customer

    @rule(data=st.data(), amount=st.none() | st.integers(1, 20))
    def refund(self, data: st.DataObject, amount: int | None) -> None:
        charge = self._a_charge(data)
        if charge is None:
            return
        given: dict[str, Any] = {"amount": amount, "external_id": f"refund:{uuid.uuid4()}", "now": timezone.now()}
        try:
            done = self._refund(charge, **given)
        except InvalidRequest:
            return
        again = self._refund(charge, **given)  # C5
        assert (again.refund, again.repeated) == (done.refund, True)

    @rule(data=st.data(), amount=st.integers(1, 20))
    def refund_and_crash_before_redis_learns(self, data: st.DataObject, amount: int) -> None:
        charge = self._a_charge(data)
        if charge is None:
            return
        account = self.customer.account
        wanted = Refund(account=account, operation=charge, amount=amount)
        try:
            refunds._book_refund(wanted, amount, reason="machine", actor="", now=timezone.now(), expires_at=None)
        except InvalidRequest:
            return

    @rule(amount=st.integers(1, 50))
    def schedule_a_grant(self, amount: int) -> None:
        now = timezone.now()
        later = now + timedelta(days=1)
        services.top_up(account=self.customer.account, amount=amount, now=now, effective_at=later)

    @rule(drains=st.integers(1, 2))
    def the_scheduled_moment_comes(self, drains: int) -> None:
        """Each drain has seen the grant as due before the other booked it; none of them tells Redis."""
        grant = self._scheduled()
        if grant is not None:
            entered = [services._enter(grant, now=grant.effective_at) for _ in range(drains)]
            assert entered.count(True) == 1

    @rule()
    def cancel_a_scheduled_grant(self) -> None:
        grant = self._scheduled()
        if grant is not None:
            assert services.cancel_scheduled(grant=grant, reason="machine", actor="", now=timezone.now())

    def _refund(self, operation: uuid.UUID, **given: Any) -> refunds.Refunded:
        return refunds.refund(account=self.customer.account, operation=operation, reason="machine", actor="", **given)

    def _a_charge(self, data: st.DataObject) -> uuid.UUID | None:
        """An operation that the ledger has a charge of."""
        charges = CreditTransaction.objects.filter(account=self.customer.account, type="debit", kind="usage")
        operations = list(dict.fromkeys(charges.order_by("id").values_list("operation", flat=True)))
        return data.draw(st.sampled_from(operations)) if operations else None

    def _scheduled(self) -> CreditGrant | None:
        grants = CreditGrant.objects.filter(account=self.customer.account, entered_at=None, voided_at=None)
        return grants.select_related("account").order_by("created_at").first()
