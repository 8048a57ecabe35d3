"""Where settings come from."""

from pathlib import Path

import pytest

from app.config import Settings


def test_secrets_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file for each, named like the variable; a variable wins."""
    (tmp_path / "modelpress_key_pepper").write_text("from a file\n")
    (tmp_path / "modelpress_database_url").write_text("postgresql+psycopg://file/x\n")
    monkeypatch.setenv("MODELPRESS_DATABASE_URL", "postgresql+psycopg://variable/x")
    settings = Settings(_env_file=None, _secrets_dir=tmp_path)
    assert settings.key_pepper.get_secret_value() == "from a file"
    assert settings.database_url == "postgresql+psycopg://variable/x"


def test_roles_of_an_issuer_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPRESS_OIDC_ROLES", '{"ml": "member"}')
    assert Settings(_env_file=None).oidc_roles == {"ml": "member"}
    monkeypatch.setenv("MODELPRESS_OIDC_ROLES", '{"ml": "king"}')
    with pytest.raises(ValueError, match="reader"):
        Settings(_env_file=None)
