"""All settings of Meterhouse in one file; `.env.example` explains each one. Values come from `config.env`."""

from typing import Any

from csp.constants import NONE, SELF
from django.templatetags.static import static
from django.urls import reverse_lazy

from config.env import BASE_DIR, DEBUG, env, secret
from config.logs import logging_config

SECRET_KEY = secret("SECRET_KEY")
ADMIN_SECRET = secret("ADMIN_SECRET")
KEY_PEPPER = secret("KEY_PEPPER")
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])
TRUSTED_PROXIES: list[str] = env.list("TRUSTED_PROXIES", default=[])

# --- The stores ------------------------------------------------------------------------------------------------------
DATABASES: dict[str, Any] = {"default": env.db_url("DATABASE_URL", default="postgresql://localhost/meterhouse")}
DATABASES["default"]["OPTIONS"] = {
    **DATABASES["default"].get("OPTIONS", {}),
    "connect_timeout": 3,
    "options": f"-c statement_timeout={env.int('DATABASE_STATEMENT_TIMEOUT_MS', default=30_000)}"
    " -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000",
    "pool": {"min_size": 0, "max_size": env.int("DATABASE_POOL", default=16), "timeout": 5, "max_idle": 60},
}
# A connection that broke while it lay in the pool, say in a restart of PostgreSQL, is replaced before a request sees it.
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL: str = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
REDIS_CLUSTER: bool = env.bool("REDIS_CLUSTER", default=False)
CACHE_URL: str = env.str("CACHE_URL", default="redis://127.0.0.1:6379/1")
CLICKHOUSE_URL: str = env.str("CLICKHOUSE_URL", default="http://default:@127.0.0.1:8123/meterhouse")
CLICKHOUSE_READER_URL: str = env.str("CLICKHOUSE_READER_URL", default="")
CLICKHOUSE_CLUSTER: str = env.str("CLICKHOUSE_CLUSTER", default="")
CLICKHOUSE_POOL: int = env.int("CLICKHOUSE_POOL", default=16)

_redis_cache = {
    "BACKEND": "django_redis.cache.RedisCache",
    "LOCATION": CACHE_URL,
    "OPTIONS": {
        "CLIENT_CLASS": "django_redis.client.DefaultClient",
        "SOCKET_CONNECT_TIMEOUT": 1,
        "SOCKET_TIMEOUT": 1,
        "IGNORE_EXCEPTIONS": True,
    },
}
CACHES: dict[str, Any] = {
    "default": {**_redis_cache, "KEY_PREFIX": "cache"},
    # An alias of its own: the address limits must neither raise nor block when the cache is gone.
    "ratelimit": {**_redis_cache, "KEY_PREFIX": "ratelimit"},
}
DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS = True
UNAUTHENTICATED_RATE: str = env.str("UNAUTHENTICATED_RATE", default="120/m")
RATELIMIT_USE_CACHE = "ratelimit"
SILENCED_SYSTEM_CHECKS = [
    "django_ratelimit.W001"
]  # django-redis increments atomically; the check knows only Django's own

# --- Background work: config.celery has the rest ----------------------------------------------------------------------
CELERY_BROKER_URL: str = env.str("CELERY_BROKER_URL", default="redis://127.0.0.1:6379/2")
ALIVE_FILE: str = env.str("ALIVE_FILE", default="")
CELERY_WORKER_CONCURRENCY: int = env.int("WORKER_PROCESSES", default=2)
# What beat starts with. `expire_seconds`: a run that found no worker until the next one is due is dropped, so nothing piles up.
CELERY_BEAT_SCHEDULE: dict[str, Any] = {
    "verify-ledger": {"task": "credits.verify_ledger", "schedule": 600, "options": {"expire_seconds": 600}},
    "evaluate-alerts": {"task": "credits.evaluate_alerts", "schedule": 60, "options": {"expire_seconds": 60}},
    "deliver-alerts": {"task": "credits.deliver_alerts", "schedule": 10, "options": {"expire_seconds": 10}},
    "sweep-ingestion": {"task": "ingestion.sweep", "schedule": 60, "options": {"expire_seconds": 60}},
    "sweep-uploads": {"task": "ingestion.sweep_uploads", "schedule": 60, "options": {"expire_seconds": 60}},
    "look-at-watched-sources": {"task": "ingestion.look", "schedule": 60, "options": {"expire_seconds": 60}},
}

# --- Metering: durations keep query deadline < hold < worker timeout -------------------------------------------------
RATE_LIMIT_RPM: int = env.int("RATE_LIMIT_RPM", default=60)
QUERY_TIMEOUT_S: int = env.int("QUERY_TIMEOUT_S", default=10)
HOLD_S: int = env.int("HOLD_S", default=45)
RESULT_KEPT_S: int = env.int("RESULT_KEPT_S", default=600)
REDIS_TIMEOUT_MS: int = env.int("REDIS_TIMEOUT_MS", default=250)
JOURNAL_EVENTS_MAX: int = env.int("JOURNAL_EVENTS_MAX", default=1_000_000)

# --- Alerts: what an account gets that has not chosen; 0 switches the alert off --------------------------------------
ALERT_LOW_CREDITS: int = env.int("ALERT_LOW_CREDITS", default=0)
ALERT_LOW_PERCENT: int = env.int("ALERT_LOW_PERCENT", default=20)
ALERT_EXPIRING_DAYS: int = env.int("ALERT_EXPIRING_DAYS", default=7)
ALERT_WEBHOOK_ALLOW_HTTP: bool = env.bool("ALERT_WEBHOOK_ALLOW_HTTP", default=False)
ALERT_WEBHOOK_ALLOWED_NETWORKS: list[str] = env.list("ALERT_WEBHOOK_ALLOWED_NETWORKS", default=[])

# EMAIL_BACKEND, EMAIL_HOST and so on from one URL.
vars().update(env.email_url("EMAIL_URL", default="smtp://localhost:25"))
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL: str = env.str("EMAIL_FROM", default="Meterhouse <no-reply@localhost>")

# --- Ingestion -------------------------------------------------------------------------------------------------------
REJECT_THRESHOLD: float = env.float("REJECT_THRESHOLD", default=0.001)
INGEST_UNPACKED_BYTES_MAX: int = env.int("INGEST_UNPACKED_BYTES_MAX", default=1_099_511_627_776)
INGEST_UNPACKED_RATIO_MAX: int = env.int("INGEST_UNPACKED_RATIO_MAX", default=500)
INGEST_FILTER_BYTES_MAX: int = env.int("INGEST_FILTER_BYTES_MAX", default=268_435_456)
INGEST_STORE_WAIT_S: int = env.int("INGEST_STORE_WAIT_S", default=600)
INGEST_ATTEMPTS_MAX: int = env.int("INGEST_ATTEMPTS_MAX", default=5)
# Objects of S3 are copied here while they are read; "" is the system's folder for temporary files.
INGEST_TEMPORARY: str = env.str("INGEST_TEMPORARY", default="")
INGEST_DOWNLOAD_BYTES_MAX: int = env.int("INGEST_DOWNLOAD_BYTES_MAX", default=107_374_182_400)
INGEST_UPLOAD_DIR: str = env.str("INGEST_UPLOAD_DIR", default="") or str(BASE_DIR / ".local" / "uploads")
INGEST_UPLOAD_BYTES_MAX: int = env.int("INGEST_UPLOAD_BYTES_MAX", default=1_073_741_824)
INGEST_UPLOAD_DAYS: int = env.int("INGEST_UPLOAD_DAYS", default=7)
INGEST_UPLOAD_KEPT_DAYS: int = env.int("INGEST_UPLOAD_KEPT_DAYS", default=30)
INGEST_ADMIN_FOLDERS: list[str] = env.list("INGEST_ADMIN_FOLDERS", default=[])
S3_ENDPOINT_URL: str = env.str("S3_ENDPOINT_URL", default="")
SPARK_MASTER: str = env.str("SPARK_MASTER", default="local[2]")
SPARK_PART_BYTES: int = env.int("SPARK_PART_BYTES", default=33_554_432)

# --- Application -----------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "config",
    "accounts",
    "credits",
    "ingestion",
    "search",
]
MIDDLEWARE = [
    "config.metrics.MeasureRequests",
    "config.middleware.RequestId",
    "config.middleware.SchemeOfProxy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "config.middleware.ContentSecurityPolicy",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

STATIC_URL = "/static/"
STATIC_ROOT: str | None = env.str("STATIC_ROOT", default=None)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# Serves each app's static files straight from where they are: no collectstatic before the first page.
WHITENOISE_USE_FINDERS = True

# --- HTTP ------------------------------------------------------------------------------------------------------------
DATA_UPLOAD_MAX_MEMORY_SIZE: int = env.int("REQUEST_BODY_MAX_BYTES", default=1_048_576)
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "config.negotiation.AnswerAnyway",
    "EXCEPTION_HANDLER": "config.errors.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Meterhouse API",
    "DESCRIPTION": "Search a very large data set by the credit.",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "PREPROCESSING_HOOKS": ["config.openapi.without_aliases"],
    "POSTPROCESSING_HOOKS": ["config.openapi.with_shared_parts"],
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "AdminSecret": {"type": "apiKey", "in": "header", "name": "X-Admin-Secret"},
        }
    },
}

SECURE_HTTPS: bool = env.bool("SECURE_HTTPS", default=False)
SECURE_SSL_REDIRECT = SECURE_HTTPS
# Whoever asks whether the process lives stands beside it and speaks plain HTTP.
SECURE_REDIRECT_EXEMPT = [r"^api/v1/health(/ready)?$"]
SECURE_HSTS_SECONDS = 31_536_000 if SECURE_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HTTPS
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3600
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF, "'unsafe-inline'"],
        "img-src": [SELF, "data:"],
        "font-src": [SELF, "data:"],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}


def _nav(title: str, icon: str, model: str, permission: str) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{model}_changelist"),
        "permission": lambda request: request.user.has_perm(permission),
    }


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Meterhouse",
    "SITE_HEADER": "Meterhouse",
    "SITE_SUBHEADER": "Operators",
    "SITE_SYMBOL": "speed",
    "SITE_URL": None,
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "BORDER_RADIUS": "6px",
    "DASHBOARD_CALLBACK": "config.admin.home",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("meterhouse/icon.svg")},
    ],
    "STYLES": [lambda request: static("meterhouse/console.css")],
    # One accent, neutral greys.
    "COLORS": {
        "base": {
            "50": "oklch(98.5% 0 0)",
            "100": "oklch(97% 0 0)",
            "200": "oklch(92.2% 0 0)",
            "300": "oklch(87% 0 0)",
            "400": "oklch(70.8% 0 0)",
            "500": "oklch(52% 0 0)",
            "600": "oklch(43.9% 0 0)",
            "700": "oklch(37.1% 0 0)",
            "800": "oklch(26.9% 0 0)",
            "900": "oklch(20.5% 0 0)",
            "950": "oklch(14.5% 0 0)",
        },
        "primary": {
            "50": "oklch(97.5% .015 230)",
            "100": "oklch(94.5% .03 230)",
            "200": "oklch(89.5% .055 230)",
            "300": "oklch(82% .085 232)",
            "400": "oklch(73% .11 235)",
            "500": "oklch(62% .12 240)",
            "600": "oklch(50% .115 243)",
            "700": "oklch(43% .1 244)",
            "800": "oklch(37% .085 244)",
            "900": "oklch(32% .07 245)",
            "950": "oklch(24% .055 246)",
        },
    },
    "SIDEBAR": {
        "navigation": [
            {"items": [{"title": "Home", "icon": "home", "link": reverse_lazy("admin:index")}]},
            {
                "title": "Customers",
                "items": [
                    _nav("Accounts", "group", "accounts_account", "accounts.view_account"),
                    _nav("API keys", "key", "accounts_apikey", "accounts.view_apikey"),
                ],
            },
            {
                "title": "Credits",
                "items": [
                    _nav("Ledger", "receipt_long", "credits_credittransaction", "credits.view_credittransaction"),
                    _nav("Grants", "add_card", "credits_creditgrant", "credits.view_creditgrant"),
                    _nav("Alerts", "notifications", "credits_alert", "credits.view_alert"),
                    _nav("Alert deliveries", "mail", "credits_alertdelivery", "credits.view_alertdelivery"),
                    _nav("Set aside", "pending_actions", "credits_setaside", "credits.view_setaside"),
                    _nav("Commands", "sync_alt", "credits_command", "credits.view_command"),
                ],
            },
            {
                "title": "Data",
                "items": [
                    _nav("Load a file", "upload", "ingestion_upload", "ingestion.load_file"),
                    _nav("Ingestion jobs", "upload_file", "ingestion_ingestionjob", "ingestion.view_ingestionjob"),
                    _nav("Watched sources", "visibility", "ingestion_watchedsource", "ingestion.view_watchedsource"),
                    _nav("Saved mappings", "schema", "ingestion_savedmapping", "ingestion.view_savedmapping"),
                ],
            },
            {
                "title": "System",
                "items": [
                    _nav("Ledger check", "fact_check", "credits_verificationrun", "credits.view_verificationrun"),
                    _nav(
                        "Periodic tasks",
                        "schedule",
                        "django_celery_beat_periodictask",
                        "django_celery_beat.view_periodictask",
                    ),
                ],
            },
            {
                "title": "Access",
                "items": [
                    _nav("Users", "person", "accounts_user", "accounts.view_user"),
                    _nav("Groups", "badge", "auth_group", "auth.view_group"),
                ],
            },
        ],
    },
}

# --- Seeing what happens ---------------------------------------------------------------------------------------------
LOGGING = logging_config(level=env.str("LOG_LEVEL", default="INFO"), as_json=env.bool("LOG_JSON", default=not DEBUG))

METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="")
METRICS_NETWORKS: list[str] = env.list("METRICS_NETWORKS", default=[])

SENTRY_DSN: str = env.str("SENTRY_DSN", default="")
if SENTRY_DSN:
    import sentry_sdk

    sentry_sdk.init(dsn=SENTRY_DSN, send_default_pii=False)
