"""The settings: declared once, read from ``.env`` of the project's folder and from the environment, which wins.

``declaration`` has them all, ``dotenv_file`` reads ``.env``, ``loading`` puts both together and says where each value
came from, ``misspelling`` finds names that are no settings.
"""

from mistral_api.settings.declaration import Settings, setting_fields
from mistral_api.settings.dotenv_file import DotenvFile, read_dotenv_file
from mistral_api.settings.errors import SettingError
from mistral_api.settings.loading import (
    LoadedSettings,
    SettingSource,
    load_settings,
    load_settings_with_sources,
    read_dotenv,
    settings_from,
)
from mistral_api.settings.misspelling import Misspelling, sentence_of, warn_of_misspellings

__all__ = [
    "DotenvFile",
    "LoadedSettings",
    "Misspelling",
    "SettingError",
    "SettingSource",
    "Settings",
    "load_settings",
    "load_settings_with_sources",
    "read_dotenv",
    "read_dotenv_file",
    "sentence_of",
    "setting_fields",
    "settings_from",
    "warn_of_misspellings",
]
