"""Lists and pages to look at: nobody adds, changes or deletes there, and large tables are never counted."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.paginator import InfinitePaginator

PAGES_MAX = 200


class NextPagePaginator(InfinitePaginator):  # type: ignore[misc]
    """Previous and next without a COUNT(*). Pages have a bound: what lies further back is reached by filters."""

    template_name = "admin/pagination_next.html"

    @property
    def count(self) -> int:
        return PAGES_MAX * int(self.per_page)

    @property
    def pages_max(self) -> int:
        return PAGES_MAX


class ReadOnlyAdmin(ModelAdmin):  # type: ignore[misc]
    """A model that only services write."""

    actions = None
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 0
    list_filter_submit = True

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(TabularInline):  # type: ignore[misc]
    """Rows of a page to look at, `per_page` at a time."""

    extra = 0
    max_num = 0
    per_page = 20
    hide_title = True
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
