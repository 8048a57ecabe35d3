"""Every setting of the service."""

from app.config import Settings
from tools.reference.markdown import code, table
from tools.reference.markdown import page as _page
from tools.reference.types import default, described

ABOUT = """
Environment variables, a file `.env` in the working folder, or files of secrets
([operations.md](../operations.md#secrets)). The defaults are right for the embedded service.
"""


def page() -> str:
    """docs/reference/settings.md."""
    prefix = str(Settings.model_config["env_prefix"])
    rows = (
        [code(f"{prefix}{name.upper()}"), described(field), default(field), field.description or ""]
        for name, field in Settings.model_fields.items()
    )
    return _page("Settings", ABOUT, table(["variable", "type", "default", "what"], rows))
