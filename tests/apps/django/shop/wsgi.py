"""What the server loads: `module = shop.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = get_wsgi_application()

try:
    from uwsgidecorators import prepromotion
except ModuleNotFoundError:
    # Another server, or manage.py.
    pass
else:
    from django.db import connections

    # A worker that others are forked from must not leave them its connections.
    prepromotion(connections.close_all)
