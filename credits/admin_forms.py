"""What an operator types to give, adjust, void or refund credits."""

import uuid

from django import forms
from django.core.validators import RegexValidator

from accounts.admin_pages import OperationForm
from config.errors import DomainError
from credits.models import CreditGrant
from credits.services import PRIORITY_DEFAULT, PRIORITY_MAX, TOP_UP_MAX, PaymentMismatch, payment_id

FORM_PREFIX = "admin"
_REFERENCE_MAX = 150


def _new_form_id() -> str:
    return f"{FORM_PREFIX}:{uuid.uuid4()}"


class ReasonForm(OperationForm):
    """Every movement of money has a reason."""

    reason = forms.CharField(max_length=255, help_text="Stands in the ledger, beside your name.")


class MoneyForm(ReasonForm):
    """A movement that is booked once: the hidden id makes sure of it however often the form is sent."""

    reference = forms.CharField(label="Reference", max_length=_REFERENCE_MAX, required=False)
    form_id = forms.CharField(
        widget=forms.HiddenInput, validators=[RegexValidator(rf"\A{FORM_PREFIX}:[0-9a-f\-]{{36}}\Z")]
    )
    # What a reference names; the same prefix on the command line makes both one movement.
    reference_prefix = ""

    @property
    def external_id(self) -> str:
        """What identifies this movement: its reference when there is one, else this form."""
        reference: str = self.cleaned_data["reference"].strip()
        return self._named(reference) if reference else str(self.cleaned_data["form_id"])

    def _named(self, reference: str) -> str:
        return f"{self.reference_prefix}:{reference}"

    @classmethod
    def blank_initial(cls) -> dict[str, object]:
        return {"form_id": _new_form_id()}

    def refuse(self, error: DomainError) -> None:
        if not isinstance(error, PaymentMismatch):
            super().refuse(error)
            return
        # The reference or this form was booked before, for another amount or account.
        if self.cleaned_data["reference"]:
            self.add_error("reference", error.message)
            return
        self.add_error(
            "amount", "Another amount was booked from this form already. Submit again to book this one as well."
        )
        self.data = {**self.data.dict(), "form_id": _new_form_id()}  # type: ignore[attr-defined]


class TopUpForm(MoneyForm):
    """Credits given: how many, what they are, from when until when."""

    amount = forms.IntegerField(
        label="Credits", min_value=1, max_value=TOP_UP_MAX, help_text="A whole number of credits."
    )
    kind = forms.ChoiceField(
        choices=CreditGrant.Kind.choices,
        required=False,
        help_text="Of two grants that expire together, a promo is spent before the others.",
    )
    expires_at = forms.DateTimeField(label="Expires (UTC)", required=False, help_text="Empty: never.")
    effective_at = forms.DateTimeField(
        label="Counts from (UTC)",
        required=False,
        help_text="Empty: now. Until a later date the grant can be cancelled on its page.",
    )
    priority = forms.IntegerField(
        min_value=0,
        max_value=PRIORITY_MAX,
        required=False,
        help_text=f"Lower is spent first. Empty: {PRIORITY_DEFAULT}.",
    )

    field_order = ["amount", "reason", "reference", "kind", "expires_at", "effective_at", "priority"]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reference"].label = "Payment reference"
        self.fields[
            "reference"
        ].help_text = "Invoice or payment number, if there is one. The same payment is never booked twice."

    def clean_kind(self) -> str:
        return self.cleaned_data["kind"] or CreditGrant.Kind.PURCHASE.value

    def clean_priority(self) -> int:
        priority: int | None = self.cleaned_data["priority"]
        return PRIORITY_DEFAULT if priority is None else priority

    def _named(self, reference: str) -> str:
        return payment_id(reference)


class AdjustForm(MoneyForm):
    """A correction, by a difference or to a figure."""

    mode = forms.ChoiceField(
        label="What", choices=[("add", "Add credits"), ("take", "Take credits"), ("set", "Set the balance to")]
    )
    amount = forms.IntegerField(label="Credits", min_value=0, max_value=TOP_UP_MAX)

    field_order = ["mode", "amount", "reason", "reference"]
    reference_prefix = "adjustment"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields[
            "amount"
        ].help_text = "What requests under way hold is never taken, and does not count in a balance that is set."
        self.fields["reference"].help_text = "Credit note or ticket, if there is one. The same one is booked once."


class RefundForm(MoneyForm):
    """How much of a charge goes back."""

    amount = forms.IntegerField(label="Credits", min_value=1, max_value=TOP_UP_MAX)
    expires_at = forms.DateTimeField(
        label="Expires (UTC)",
        required=False,
        help_text="Of credits whose own grant has ended; they go into a new one. Empty: never.",
    )

    field_order = ["amount", "reason", "reference", "expires_at"]
    reference_prefix = "refund"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reference"].help_text = "Ticket or credit note, if there is one. The same one is refunded once."
