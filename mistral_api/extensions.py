"""The Flask extensions, made without an application and bound to one by the factory."""

from __future__ import annotations

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from mistral_api.tables.base import Base

db = SQLAlchemy(model_class=Base)
migrate = Migrate()
