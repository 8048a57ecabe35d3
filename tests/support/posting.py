"""Name servers that say what a test wants, and posts that may reach loopback."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network

from app.config import Settings
from app.webhooks.attempt import Poster
from app.webhooks.network import look_up

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class Names:
    """Name servers whose answers come from a list; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@asynccontextmanager
async def poster(names: Names | None = None, **changes: object) -> AsyncIterator[Poster]:
    settings = Settings(_env_file=None, webhook_timeout_s=2, webhook_allow_http=True).model_copy(update=changes)
    made = Poster(settings, 4, names or look_up)
    yield made
    await made.close()
