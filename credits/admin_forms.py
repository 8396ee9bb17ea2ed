"""What an operator types to top up an account."""

import uuid

from django import forms
from django.core.validators import RegexValidator

from accounts.admin_pages import OperationForm
from credits.services import TOP_UP_MAX, PaymentMismatch, payment_id

FORM_PREFIX = "admin"
_REFERENCE_MAX = 150


def _new_form_id() -> str:
    return f"{FORM_PREFIX}:{uuid.uuid4()}"


class TopUpForm(OperationForm):
    """Amount, reason and optionally the payment; the hidden id makes sure that a form sent twice books once."""

    amount = forms.IntegerField(
        label="Credits", min_value=1, max_value=TOP_UP_MAX, help_text="A whole number of credits, without expiry."
    )
    reason = forms.CharField(max_length=255, help_text="Stands in the ledger, beside your name.")
    reference = forms.CharField(
        label="Payment reference",
        max_length=_REFERENCE_MAX,
        required=False,
        help_text="Invoice or payment number, if there is one. The same payment is never booked twice.",
    )
    form_id = forms.CharField(
        widget=forms.HiddenInput, validators=[RegexValidator(rf"\A{FORM_PREFIX}:[0-9a-f\-]{{36}}\Z")]
    )

    @classmethod
    def blank(cls) -> "TopUpForm":
        return cls(initial={"form_id": _new_form_id()})

    @property
    def external_id(self) -> str:
        """What identifies this top-up: the payment when there is one, else this form."""
        reference: str = self.cleaned_data["reference"]
        return payment_id(reference) if reference else str(self.cleaned_data["form_id"])

    def refuse_mismatch(self, error: PaymentMismatch) -> None:
        """The payment or this form was booked before, for another amount or account."""
        if self.cleaned_data["reference"]:
            self.add_error("reference", error.message)
            return
        self.add_error(
            "amount",
            "A top-up of another amount was booked from this form already. Submit again to book this one as well.",
        )
        self.data = {**self.data.dict(), "form_id": _new_form_id()}  # type: ignore[attr-defined]
