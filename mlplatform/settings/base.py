"""What holds in every role and environment.

Each setting is documented where it is read: unit, default, and what it is for. Roles differ by
what they leave out (see ``web.py``, ``serving.py``, ``worker.py``).
"""

from pathlib import Path
from typing import Any

import django_stubs_ext
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy

from mlplatform.settings import env
from mlplatform.settings.secrets import secret_key

django_stubs_ext.monkeypatch()

BASE_DIR = env.BASE_DIR

# Where everything that this installation writes lives, when no service takes it.
DATA_DIR = Path(env.text("MLP_DATA_DIR", str(BASE_DIR / "var"))).resolve()

# Signs sessions and CSRF tokens. Made and kept in DATA_DIR/keys when not given.
_given_key = env.secret("MLP_SECRET_KEY")
SECRET_KEY = _given_key or secret_key(DATA_DIR)
IS_SECRET_KEY_KEPT = not _given_key
# The former key while a rotation is under way.
SECRET_KEY_FALLBACKS = [key for key in (env.secret("MLP_SECRET_KEY_OLD"),) if key]

DEBUG = env.switch("MLP_DEBUG", default=False)
ALLOWED_HOSTS = list(env.words("MLP_ALLOWED_HOSTS", ("localhost", "127.0.0.1", "[::1]")))
CSRF_TRUSTED_ORIGINS = list(env.words("MLP_CSRF_TRUSTED_ORIGINS"))
# How many proxies of one's own stand in front. As many entries of X-Forwarded-For, from the right,
# are believed; with 0 the other end of the connection is the client.
TRUSTED_PROXIES = env.integer("MLP_TRUSTED_PROXIES", 0)

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "corsheaders",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "apps.core",
    "apps.accounts",
    "apps.registry",
    "apps.inference",
    "apps.monitoring",
]

MIDDLEWARE = [
    "apps.core.middleware.RequestIdMiddleware",
    "apps.core.middleware.HeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "apps.accounts.middleware.SessionLifeMiddleware",
    "apps.accounts.sso.middleware.SecondFactorMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "mlplatform.urls"
APPEND_SLASH = True
ASGI_APPLICATION = "mlplatform.asgi.application"

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
    },
]

# --- database -------------------------------------------------------------------------------
# PostgreSQL in production (postgres://user:password@host:5432/name); SQLite in DATA_DIR without.
DATABASE_URL = env.secret("DATABASE_URL") or f"sqlite:///{DATA_DIR / 'db.sqlite3'}"
# The owner of the tables, for the commands of `env.OWNER_COMMANDS` alone; without one the
# application's own role does it all.
MIGRATE_DATABASE_URL = env.secret("MLP_MIGRATE_DATABASE_URL")
if MIGRATE_DATABASE_URL and env.is_owner_command():
    DATABASE_URL = MIGRATE_DATABASE_URL
DATABASES: dict[str, dict[str, Any]] = {"default": env.database(DATABASE_URL)}
_default = DATABASES["default"]
_default["CONN_MAX_AGE"] = 0
if _default["ENGINE"] == "django.db.backends.sqlite3":
    # WAL lets readers go on beside the one writer; IMMEDIATE takes the write lock at BEGIN, so that
    # a transaction that reads first never fails half-way with "database is locked".
    _default["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    # Seconds until an unreachable database is an error; predictions never wait for it.
    _default["OPTIONS"] = {
        "connect_timeout": env.integer("MLP_DB_CONNECT_SECONDS", 2),
        "pool": {"min_size": 0, "max_size": env.integer("MLP_DB_POOL_SIZE", 8), "timeout": 3},
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- cache, broker --------------------------------------------------------------------------
REDIS_URL = env.secret("REDIS_URL")
CACHES: dict[str, dict[str, Any]] = {
    "default": (
        {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
            # Not pickle: whoever can write to Redis must not run programs here.
            "OPTIONS": {"serializer": "apps.core.caches.JsonSerializer"},
        }
        if REDIS_URL
        else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    )
}

# Redis, or files below DATA_DIR that need no server (one machine only). The broker is a hint: the
# truth about background work is the table core.Work.
CELERY_BROKER_URL = env.secret("MLP_BROKER_URL") or REDIS_URL or "filesystem://localhost"
if CELERY_BROKER_URL.startswith("filesystem"):
    _broker = DATA_DIR / "broker"
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
        "data_folder_in": str(_broker / "queue"),
        "data_folder_out": str(_broker / "queue"),
        "control_folder": str(_broker / "control"),
        "store_processed": False,
        "polling_interval": 0.05,
    }
else:
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 300}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "work"
CELERY_TASK_ROUTES = {"*.tick_*": {"queue": "ticks"}}
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "seal events": {"task": "core.tick_seal_events", "schedule": 1.0},
    "seal old events": {"task": "core.tick_seal_old_events", "schedule": 600.0},
    "reap lost work": {"task": "core.tick_reap_work", "schedule": 10.0},
    "drop expired tokens": {"task": "accounts.tick_drop_expired_tokens", "schedule": 3600.0},
    "warn of unused keys": {"task": "accounts.tick_warn_of_unused_keys", "schedule": 86400.0},
    "make partitions ahead": {"task": "inference.tick_make_partitions", "schedule": 3600.0},
    "purge what is past its time": {"task": "monitoring.tick_purge", "schedule": 86400.0},
    "sweep abandoned uploads": {"task": "registry.tick_sweep_uploads", "schedule": 900.0},
    "tell people the news": {"task": "monitoring.tick_notify", "schedule": 2.0},
    "anchor the audit chain": {
        "task": "core.tick_anchor_audit",
        "schedule": float(env.integer("MLP_AUDIT_ANCHOR_SECONDS", 3600)),
    },
    "watch the audit chain": {"task": "core.tick_watch_audit", "schedule": 300.0},
    "verify the audit chain": {"task": "core.tick_verify_audit", "schedule": 86400.0},
}

# --- artifacts ------------------------------------------------------------------------------
# S3 or a compatible store when a bucket is named; else DATA_DIR/artifacts.
AWS_STORAGE_BUCKET_NAME = env.text("AWS_STORAGE_BUCKET_NAME")
if AWS_STORAGE_BUCKET_NAME:
    _artifacts: dict[str, Any] = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": AWS_STORAGE_BUCKET_NAME,
            "endpoint_url": env.text("AWS_S3_ENDPOINT_URL") or None,
            "region_name": env.text("AWS_S3_REGION_NAME") or None,
            "location": env.text("MLP_ARTIFACT_PREFIX", "artifacts"),
            "file_overwrite": True,
            "default_acl": None,
        },
    }
else:
    _artifacts = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": str(DATA_DIR / "artifacts"),
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    }
STORAGES: dict[str, dict[str, Any]] = {
    "default": _artifacts,
    "artifacts": _artifacts,
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
STATIC_URL = "/static/"
# Where `collectstatic` puts CSS, JavaScript and icons; an image has them outside its data folder.
STATIC_ROOT = Path(env.text("MLP_STATIC_DIR", str(DATA_DIR / "static")))
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
# Files are for our own pages; what other origins may read is MLP_CORS_ORIGINS' to say.
WHITENOISE_ALLOW_ALL_ORIGINS = False

# --- people, keys, tokens ---------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.BCryptSHA256PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Every way in by a password passes this one: it counts failures and locks.
AUTHENTICATION_BACKENDS = ["apps.accounts.backends.GuardedBackend"]
# Who may make an account without an operator: nobody, who was invited, or anybody.
REGISTRATION_MODES = ("off", "invitation", "open")
REGISTRATION = env.choice("MLP_REGISTRATION", "off", REGISTRATION_MODES)
# Days without a call after which the holder of a key is told so; whether thirty days later it is
# revoked.
KEY_UNUSED_DAYS = env.integer("MLP_KEY_UNUSED_DAYS", 90)
KEY_UNUSED_REVOKE = env.switch("MLP_KEY_UNUSED_REVOKE", default=False)
# Whether keys remember the addresses that they were used from, which are personal data.
RECORD_ADDRESSES = env.switch("MLP_RECORD_ADDRESSES", default=True)
# Days that an invitation is good for.
INVITATION_DAYS = env.integer("MLP_INVITATION_DAYS", 7)
# Failed sign-ins of one name, within as many minutes, that lock it for as many minutes; an address
# is locked at ten times the failures. Both at least 1.
LOCKOUT_FAILURES = max(1, env.integer("MLP_LOCKOUT_FAILURES", 5))
LOCKOUT_MINUTES = max(1, env.integer("MLP_LOCKOUT_MINUTES", 15))
# Calls of one address, as 20/m (s, m, h, d); an upload counts by person, too; off is no limit.
THROTTLE_LOGIN = env.rate("MLP_THROTTLE_LOGIN", "20/m")
THROTTLE_REGISTER = env.rate("MLP_THROTTLE_REGISTER", "5/m")
THROTTLE_UPLOAD = env.rate("MLP_THROTTLE_UPLOAD", "600/h")
# Requests a minute of one person with all keys and tokens, and of one address; 0 is no limit. Plans
# limit besides, and a person or key has exactly one.
LIMIT_PERSON_PER_MINUTE = env.integer("MLP_LIMIT_PERSON_PER_MINUTE", 0)
LIMIT_ADDRESS_PER_MINUTE = env.integer("MLP_LIMIT_ADDRESS_PER_MINUTE", 0)
# Calls a minute of one address with no or a bad credential, beyond which none is looked at.
LIMIT_REFUSED_PER_MINUTE = env.integer("MLP_LIMIT_REFUSED_PER_MINUTE", 120)
# Milliseconds that a call waits for the counters in Redis before this node counts by itself.
LIMIT_REDIS_MS = env.integer("MLP_LIMIT_REDIS_MS", 20)
# Minutes without a request after which a browser is signed out; SESSION_COOKIE_AGE ends it anyway.
SESSION_IDLE_MINUTES = env.integer("MLP_SESSION_IDLE_MINUTES", 30)
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
# Sessions are rows, so that one can be ended. `cached` reads them from Redis first (writes go to
# both, and ending one removes both).
SESSION_ENGINE = env.sessions("MLP_SESSIONS", env.text("MLP_SESSIONS", "database"), REDIS_URL)
SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"
SESSION_COOKIE_AGE = 8 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
# The content security policies stand with the other headers in apps/core/headers.py.

# --- single sign-on and second factor ---------------------------------------------------------
# An OpenID Connect provider: its issuer as it names itself, https://id.example.org/realms/main. Its
# host needs MLP_OUTBOUND_ALLOW where it has no public address. Off without.
OIDC_ISSUER = env.text("MLP_OIDC_ISSUER").rstrip("/")
OIDC_CLIENT_ID = env.text("MLP_OIDC_CLIENT_ID")
OIDC_CLIENT_SECRET = env.secret("MLP_OIDC_CLIENT_SECRET")
# What people call it; the button of the sign-in page says it.
OIDC_NAME = env.text("MLP_OIDC_NAME", "Single sign-on")
# Whoever the provider knows may come in: an account without a team is made for them.
OIDC_CREATE = env.switch("MLP_OIDC_CREATE", default=False)
# The admin's pages open by the provider only, but for platform admins.
OIDC_REQUIRED = env.switch("MLP_OIDC_REQUIRED", default=False)
if OIDC_REQUIRED and not OIDC_ISSUER:
    raise ImproperlyConfigured("MLP_OIDC_REQUIRED=1 needs MLP_OIDC_ISSUER")
# The second factor of the admin: not offered, offered, or demanded before anything else opens.
MFA = env.choice("MLP_MFA", "optional", ("off", "optional", "required"))
ACCOUNT_ADAPTER = "apps.accounts.sso.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = "admin:login"
ACCOUNT_REAUTHENTICATION_TIMEOUT = 600
# The library's own counts need a cache that answers; ours (`guards`, `throttles`) do not.
ACCOUNT_RATE_LIMITS = False
MFA_RATE_LIMITS = False
SOCIALACCOUNT_ADAPTER = "apps.accounts.sso.adapters.SocialAdapter"
SOCIALACCOUNT_STORE_TOKENS = False
MFA_ADAPTER = "apps.accounts.sso.adapters.MfaAdapter"
MFA_FORMS = {
    "authenticate": "apps.accounts.sso.forms.CodeForm",
    "reauthenticate": "apps.accounts.sso.forms.ConfirmCodeForm",
}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_RECOVERY_CODE_DIGITS = 10
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_TOTP_TOLERANCE = 1

# Origins (scheme, host, port) whose pages may call the API from a browser; none without. Keys and
# tokens are sent by their scripts; cookies are never taken from there.
CORS_ALLOWED_ORIGINS = list(env.origins("MLP_CORS_ORIGINS", env.words("MLP_CORS_ORIGINS")))
CORS_URLS_REGEX = r"^/(api|v2|health)(/|$)"
CORS_ALLOW_CREDENTIALS = False
CORS_ALLOW_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
CORS_ALLOW_HEADERS = (
    "accept",
    "authorization",
    "content-type",
    "idempotency-key",
    "x-api-key",
    "x-prediction-source",
    "x-request-id",
    "x-request-timeout-ms",
)
CORS_EXPOSE_HEADERS = (
    "RateLimit-Limit",
    "RateLimit-Policy",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-Request-ID",
)
CORS_PREFLIGHT_MAX_AGE = 600

# ES256 key pair (PEM). Made and kept in DATA_DIR/keys when not given. A process that only serves
# needs the public one alone; that may hold two PEM blocks while a rotation is under way.
JWT_PRIVATE_KEY = env.secret("MLP_JWT_PRIVATE_KEY")
JWT_PUBLIC_KEY = env.secret("MLP_JWT_PUBLIC_KEY")
JWT_ISSUER = env.text("MLP_JWT_ISSUER", "mlplatform")
JWT_AUDIENCE = env.text("MLP_JWT_AUDIENCE", "mlplatform")
JWT_ACCESS_SECONDS = env.integer("MLP_JWT_ACCESS_SECONDS", 30 * 60)
JWT_REFRESH_SECONDS = env.integer("MLP_JWT_REFRESH_SECONDS", 7 * 24 * 3600)

# Days that it is remembered from where a key was used, and whom an invitation was for.
ADDRESS_RETENTION_DAYS = env.integer("MLP_ADDRESS_RETENTION_DAYS", 90)

# --- API --------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["apps.accounts.api.authentication.CallerAuthentication"],
    "DEFAULT_THROTTLE_CLASSES": ["apps.accounts.api.throttles.CallerThrottle"],
    "DEFAULT_PERMISSION_CLASSES": ["apps.accounts.api.permissions.DenyByDefault"],
    "DEFAULT_RENDERER_CLASSES": ["apps.core.api.json.JsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["apps.core.api.json.JsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "apps.core.api.pagination.NewestFirst",
    "EXCEPTION_HANDLER": "apps.core.api.exceptions.problem_response",
    "PAGE_SIZE": 50,
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "mlplatform",
    "VERSION": "1",
    "DESCRIPTION": "Upload, version, approve, serve and compare machine-learning models.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    # Each door once, though it answers at several addresses.
    "PREPROCESSING_HOOKS": ["apps.core.api.schema.documented"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "apps.core.api.schema.with_problems",
    ],
    "COMPONENT_SPLIT_REQUEST": True,
    # Fields named `role` have two lists of values; each gets its own name.
    "ENUM_NAME_OVERRIDES": {
        "MemberRole": "apps.accounts.models.Membership.RoleChoice",
        "ArmRole": ["primary", "candidate", "shadow"],
    },
}
# Anyone may read /docs and the schema; otherwise a login is asked for.
PUBLIC_DOCS = env.switch("MLP_PUBLIC_DOCS", default=False)
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 1024 * 1024
# Fields and files of one form; a list's page of 200 rows with its boxes stays far below.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1000
DATA_UPLOAD_MAX_NUMBER_FILES = 10

# --- registry ---------------------------------------------------------------------------------
# Releasing to production waits for a second person.
REQUIRE_APPROVAL = env.switch("MLP_REQUIRE_APPROVAL", default=True)
# Bytes of one uploaded artifact at the most.
MAX_ARTIFACT_BYTES = env.integer("MLP_MAX_ARTIFACT_BYTES", 5 * 1024**3)
# Days after which an upload that nobody finished, or that nothing needs any more, is removed.
UPLOAD_RETENTION_DAYS = env.integer("MLP_UPLOAD_RETENTION_DAYS", 7)
# Formats that may be served by a runner process when they do not convert (sklearn).
NATIVE_FORMATS = frozenset(env.words("MLP_NATIVE_FORMATS"))
# Seconds one sandbox stage may take before it is ended.
VALIDATION_STAGE_SECONDS = env.integer("MLP_VALIDATION_STAGE_SECONDS", 60)

# --- serving ----------------------------------------------------------------------------------
# The local state of serving processes: snapshot file, artifact cache, worker reports.
SERVING_DIR = Path(env.text("MLP_SERVING_DIR", str(DATA_DIR / "serving")))
# Name of this node where people see what it runs; empty is the host's name and the folder.
NODE_NAME = env.text("MLP_NODE_NAME")
# Where records of predictions wait for the database.
SPOOL_DIR = Path(env.text("MLP_SPOOL_DIR", str(DATA_DIR / "spool")))
# Bytes the spool may take before answers are refused (10 GB).
SPOOL_BYTES = env.integer("MLP_SPOOL_BYTES", 10 * 1024**3)
# Bytes of recorded inputs or outputs kept whole; larger ones as digest.
RECORD_BYTES = env.integer("MLP_RECORD_BYTES", 64 * 1024)
# Memory for loaded models per serving process, in bytes.
POOL_BYTES = env.integer("MLP_POOL_MB", 1024) * 1024**2
# Memory for stored answers per serving process, in bytes.
ANSWER_CACHE_BYTES = env.integer("MLP_ANSWER_CACHE_MB", 64) * 1024**2
# Threads of the ML library inside one run.
MODEL_THREADS = env.integer("MLP_MODEL_THREADS", 1)
# Calls that may wait for one model before the next is refused.
QUEUE_CALLS = env.integer("MLP_QUEUE_CALLS", 256)
# Rows of one call at the most, and bytes of its body.
MAX_ROWS = env.integer("MLP_MAX_ROWS", 100)
MAX_PREDICT_BYTES = env.integer("MLP_MAX_PREDICT_BYTES", 10 * 1024**2)
# The same for a model that takes images: one of 10 MB is 13.4 MB in base64. Below
# DATA_UPLOAD_MAX_MEMORY_SIZE, or Django refuses the body first.
MAX_IMAGE_PREDICT_BYTES = env.integer("MLP_MAX_IMAGE_PREDICT_BYTES", 14 * 1024**2)
# Where the pages send what people try: http://host:port of the serving role. Without it a process
# that serves predictions itself answers, and any other one with a small pool of its own.
SERVING_URL = env.text("MLP_SERVING_URL").rstrip("/")
# Memory for the models that people try in a process that serves nobody, in bytes.
WEB_POOL_BYTES = env.integer("MLP_WEB_POOL_MB", 256) * 1024**2
# Whether processes of this role answer predictions themselves; roles differ, no variable sets it.
SERVES = False
# Seconds between two looks of the agent at the database, and of a worker at the local file.
AGENT_POLL_SECONDS = env.number("MLP_AGENT_POLL_SECONDS", 0.5)
FOLLOW_POLL_SECONDS = env.number("MLP_FOLLOW_POLL_SECONDS", 0.2)
# Days that predictions are kept.
PREDICTION_RETENTION_DAYS = env.integer("MLP_PREDICTION_RETENTION_DAYS", 90)
# Days that records which the database refused, and copies of damaged spool files, are kept.
REJECTED_RETENTION_DAYS = env.integer("MLP_REJECTED_RETENTION_DAYS", 7)
# Days of PostgreSQL partitions that are made ahead.
PARTITION_DAYS_AHEAD = env.integer("MLP_PARTITION_DAYS_AHEAD", 7)

# --- one machine: `make run` -------------------------------------------------------------------
# Address of the web server, host:port.
BIND = env.text("MLP_BIND", "127.0.0.1:8000")
# Train, upload and release two small models on the first start.
DEMO = env.switch("MLP_DEMO", default=True)

# --- news and other outbound calls ------------------------------------------------------------
# Address under which people reach the platform; links in mails and messages begin with it.
PUBLIC_URL = env.text("MLP_PUBLIC_URL", f"http://{BIND}").rstrip("/")
# smtp+tls://user:password@host:587 (STARTTLS) or smtp+ssl://user:password@host:465; off without.
EMAIL_URL = env.secret("MLP_EMAIL_URL")
EMAIL_TIMEOUT = 10
globals().update(env.email("MLP_EMAIL_URL", EMAIL_URL))
# Sender of mails: an address, or a name with one.
DEFAULT_FROM_EMAIL = env.text("MLP_EMAIL_FROM", "mlplatform <mlplatform@localhost>")
# An incoming webhook of Slack or of what understands its messages; off without.
SLACK_WEBHOOK_URL = env.secret("MLP_SLACK_WEBHOOK_URL")
# Hosts of the own network, host or host:port, that outbound calls may reach, also without TLS.
OUTBOUND_ALLOW = frozenset(env.words("MLP_OUTBOUND_ALLOW"))
# Ports that outbound calls go to.
OUTBOUND_PORTS = frozenset(env.integers("MLP_OUTBOUND_PORTS", (443,)))
# http://[user:password@]host:port of a proxy that all outbound calls go through.
OUTBOUND_PROXY = env.secret("MLP_OUTBOUND_PROXY")
# --- the audit record -------------------------------------------------------------------------
# Makes the links of the chain with a key that the database does not hold; and the former one while
# a rotation is under way. What was sealed before it was set stays valid.
AUDIT_HMAC_KEY = env.secret("MLP_AUDIT_HMAC_KEY")
AUDIT_HMAC_KEY_OLD = env.secret("MLP_AUDIT_HMAC_KEY_OLD")
# Where the head of the chain is written down outside the database: s3://bucket/prefix with object
# lock, or file:///folder for a demo; off without.
AUDIT_ANCHOR = env.text("MLP_AUDIT_ANCHOR")
# Credentials of their own, so that who holds the platform's cannot touch the anchors.
AUDIT_ANCHOR_KEY_ID = env.secret("MLP_AUDIT_ANCHOR_KEY_ID")
AUDIT_ANCHOR_SECRET = env.secret("MLP_AUDIT_ANCHOR_SECRET")
AUDIT_ANCHOR_ENDPOINT_URL = env.text("MLP_AUDIT_ANCHOR_ENDPOINT_URL")
AUDIT_ANCHOR_REGION = env.text("MLP_AUDIT_ANCHOR_REGION")
# Seconds between two anchors.
AUDIT_ANCHOR_SECONDS = env.integer("MLP_AUDIT_ANCHOR_SECONDS", 3600)
# Seconds between two events that sum up which predictions a node shipped.
SHIPPED_EVENT_SECONDS = env.integer("MLP_SHIPPED_EVENT_SECONDS", 600)
# Days that events are kept, at the least; an anchor is locked for 30 more.
AUDIT_RETENTION_DAYS = env.integer("MLP_AUDIT_RETENTION_DAYS", 365)

# Days that ended background work is kept to be looked at.
WORK_RETENTION_DAYS = env.integer("MLP_WORK_RETENTION_DAYS", 30)
# Days that notifications are kept.
NOTIFICATION_RETENTION_DAYS = env.integer("MLP_NOTIFICATION_RETENTION_DAYS", 90)

# A word at the top of every page that says which installation this is: production, staging.
INSTALLATION = env.text("MLP_INSTALLATION")

# --- the rest ---------------------------------------------------------------------------------
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = True
TEST_RUNNER = "django.test.runner.DiscoverRunner"

LOG_LEVEL = env.text("MLP_LOG_LEVEL", "INFO")
# Whether tracebacks keep what errors say: that may quote values that somebody sent.
LOG_ERROR_TEXTS = env.switch("MLP_LOG_ERROR_TEXTS", default=False)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "context": {"()": "apps.core.logs.ContextFilter"},
        "refusals": {"()": "apps.core.logs.RefusalFilter"},
    },
    "formatters": {
        "json": {"()": "apps.core.logs.JsonFormatter", "error_texts": LOG_ERROR_TEXTS},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "json",
            "filters": ["context"],
        }
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.server": {"handlers": [], "propagate": False},
        "django.request": {"filters": ["refusals"]},
    },
}

# Who sees an entry of the menu that only platform admins have; everybody else's need no rule.
_ADMINS = "apps.core.admin.is_platform_admin"
_AUDITORS = "apps.accounts.admin.audit.may_read_audit"


def _page(title: str, icon: str, name: str, permission: str | None = None) -> dict[str, Any]:
    """Return one entry of the menu: a page of the admin by its URL's name."""
    entry: dict[str, Any] = {"title": title, "icon": icon, "link": reverse_lazy(f"admin:{name}")}
    return entry | ({"permission": permission} if permission else {})


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "mlplatform",
    "SITE_HEADER": "mlplatform",
    "SITE_SUBHEADER": "Models, releases, predictions",
    "SITE_SYMBOL": "hub",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": f"{STATIC_URL}favicon.svg"},
    ],
    "SITE_URL": None,
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "apps.core.admin.installation_badge",
    "DASHBOARD_CALLBACK": "apps.monitoring.pages.home.dashboard",
    "STYLES": [f"{STATIC_URL}core/platform.css", f"{STATIC_URL}monitoring/bell.css"],
    "SCRIPTS": [
        f"{STATIC_URL}core/platform.js",
        f"{STATIC_URL}core/charts.js",
        f"{STATIC_URL}monitoring/bell.js",
    ],
    "COLORS": {
        "primary": {
            "50": "oklch(96.2% .018 272.314)",
            "100": "oklch(93% .034 272.788)",
            "200": "oklch(87% .065 274.039)",
            "300": "oklch(78.5% .115 274.713)",
            "400": "oklch(67.3% .182 276.935)",
            "500": "oklch(58.5% .233 277.117)",
            "600": "oklch(51.1% .262 276.966)",
            "700": "oklch(45.7% .24 277.023)",
            "800": "oklch(39.8% .195 277.366)",
            "900": "oklch(35.9% .144 278.697)",
            "950": "oklch(25.7% .09 281.288)",
        },
    },
    "ACCOUNT": {
        "navigation": [
            {"title": "Your account", "link": reverse_lazy("accounts-pages:account")},
            {"title": "Change password", "link": reverse_lazy("admin:password_change")},
            *([{"title": "Second factor", "link": reverse_lazy("mfa_index")}] * (MFA != "off")),
        ]
    },
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "show_all_applications": False,
        "navigation": [
            {"items": [{"title": "Home", "icon": "home", "link": reverse_lazy("admin:index")}]},
            {
                "title": "Models",
                "items": [
                    _page("Models", "deployed_code", "registry_registeredmodel_changelist"),
                    _page("Versions", "layers", "registry_modelversion_changelist"),
                    _page("Endpoints", "route", "registry_endpoint_changelist"),
                    _page("Releases", "rocket_launch", "registry_release_changelist")
                    | {
                        "badge": "apps.registry.admin.endpoint.awaiting_badge",
                        "badge_words": "awaiting approval",
                    },
                ],
            },
            {
                "title": "Use",
                "items": [
                    {
                        "title": "Traffic",
                        "icon": "monitoring",
                        "link": reverse_lazy("inference-pages:traffic"),
                    },
                    _page("Predictions", "query_stats", "inference_prediction_changelist"),
                    _page("Erasures", "ink_eraser", "inference_erasure_changelist", _AUDITORS),
                ],
            },
            {
                "title": "Access",
                "items": [
                    _page("API keys", "key", "accounts_apikey_changelist"),
                    _page("Teams", "groups", "accounts_team_changelist"),
                    _page("People", "person", "accounts_user_changelist", _ADMINS),
                    _page("Plans", "speed", "accounts_plan_changelist", _ADMINS),
                ],
            },
            {
                "title": "Operations",
                "items": [
                    _page("Audit", "history", "core_event_changelist", _AUDITORS),
                    _page("Background work", "pending_actions", "core_work_changelist", _ADMINS),
                    _page(
                        "Rejected records",
                        "report",
                        "inference_predictionrejected_changelist",
                        _ADMINS,
                    ),
                ],
            },
        ],
    },
}
