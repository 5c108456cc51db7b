"""The WSGI entry: Django alone, for servers without ASGI; the lean doors are not in front."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mlplatform.settings.dev")

application = get_wsgi_application()
