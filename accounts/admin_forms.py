"""What an operator types to create a customer, issue, limit or revoke a key."""

from django import forms
from django.conf import settings

from accounts.admin_pages import OperationForm
from accounts.keys import PREFIX
from accounts.services import RPM_MAX


class CustomerForm(OperationForm):
    """A new customer: its name and the address of its owner."""

    name = forms.CharField(max_length=200)
    email = forms.EmailField(
        label="E-mail",
        max_length=254,
        help_text="The owner's address; statements and alerts go there. A user with this address becomes the owner.",
    )


class KeyLimitForm(OperationForm):
    """A key's requests per minute."""

    rpm = forms.IntegerField(label="Requests per minute", min_value=0, max_value=RPM_MAX, required=False)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields[
            "rpm"
        ].help_text = f"Empty: follows the setting RATE_LIMIT_RPM (now {settings.RATE_LIMIT_RPM}). 0: no limit."


class IssueKeyForm(KeyLimitForm):
    """A new key."""

    label = forms.CharField(max_length=100, required=False, help_text="What this key is for, such as “nightly export”.")

    field_order = ["label", "rpm"]


class RevokeKeyForm(OperationForm):
    """Asks for the key's id, for a revoked key never works again."""

    confirmation = forms.CharField(label="Key id", max_length=64, widget=forms.TextInput({"autocomplete": "off"}))

    def __init__(self, *args: object, public_id: str, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._public_id = public_id
        self.fields["confirmation"].help_text = f"Type {public_id} to revoke this key for good."

    def clean_confirmation(self) -> str:
        typed: str = self.cleaned_data["confirmation"].strip()
        if typed not in {self._public_id, f"{PREFIX}{self._public_id}", f"{PREFIX}{self._public_id}_…"}:
            raise forms.ValidationError(f"This is not the id of the key. Type {self._public_id}.")
        return typed


class ConfirmForm(OperationForm):
    """Nothing to type: the button is the confirmation."""
