"""The addresses of search, its documentation and the health of the service; the short names are aliases."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter
from django.views.generic import RedirectView

from config import health
from search import views
from search.openapi import SchemaView, SwaggerView


class AnyText(StringConverter):
    """A path's rest, whatever it holds: a source's own id may contain slashes and line breaks."""

    regex = r"[\s\S]+"


register_converter(AnyText, "any_text")

urlpatterns = [
    path("api/v1/query", views.QueryView.as_view(), name="query"),
    path("api/v1/search", views.SearchView.as_view(), name="search"),
    path("api/v1/person/<any_text:person_id>", views.PersonView.as_view(), name="person"),
    path("api/v1/download", views.DownloadView.as_view(), name="download"),
    path("api/v1/fields", views.FieldsView.as_view(), name="fields"),
    path("search", views.SearchView.as_view(), name="search-alias"),
    path("person/<any_text:person_id>", views.PersonView.as_view(), name="person-alias"),
    path("download", views.DownloadView.as_view(), name="download-alias"),
    path("health", health.report, name="health"),
    path("api/v1/health", health.alive, name="health-alive"),
    path("api/v1/health/ready", health.ready, name="health-ready"),
    path("api/schema", SchemaView.as_view(), name="schema"),
    path("api/docs", SwaggerView.as_view(url_name="schema"), name="docs"),
    path("docs", RedirectView.as_view(pattern_name="docs"), name="docs-alias"),
]
