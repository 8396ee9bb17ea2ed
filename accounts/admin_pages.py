"""The pages on which an operator does one thing to a customer or a key: `config.admin_pages`, and the way back."""

from typing import Any

from django.urls import reverse

from config.admin_pages import OperationForm, operation, operation_page, result_page

__all__ = ["OperationForm", "account_url", "operation", "operation_page", "result_page"]


def account_url(account_id: Any) -> str:
    """The page of the customer with that key."""
    return reverse("admin:accounts_account_change", args=[account_id])
