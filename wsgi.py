"""The WSGI entry point: ``waitress-serve wsgi:app``, ``flask db upgrade``."""

from mistral_api import create_app
from mistral_api.errors import StartError
from mistral_api.settings import SettingError

try:
    app = create_app()
except (SettingError, StartError) as error:
    raise SystemExit(str(error)) from error
