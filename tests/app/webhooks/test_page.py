"""The receiver in docs/webhooks.md is one that works."""

import re
import threading
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.webhooks.attempt import Poster

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parents[3] / "docs/webhooks.md"


async def test_the_example_verifies(hooks: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    handler: Any = None
    with HTTPServer(("127.0.0.1", 0), lambda *request: handler(*request)) as server:
        made = await hooks.make(url=f"http://127.0.0.1:{server.server_address[1]}/")
        monkeypatch.setenv("WEBHOOK_SECRET", made["secret"])
        exec(source, names)
        handler = names["Receiver"]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            delivery = await hooks.test(made)
            async with hooks.sender():
                await hooks.ended(made)
                path = f"/v1/webhooks/{made['id']}/deliveries/{delivery['id']}:redeliver"
                assert (await hooks.client.post(path)).status_code == 202
                (row,) = await hooks.ended(made)
            forged = {"webhook-id": "whd_x", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
            poster = Poster(hooks.stage.settings, 1)
            outcome = await poster.post(made["url"], forged, "{}")
            await poster.close()
        finally:
            server.shutdown()
            thread.join()
    assert (row["state"], row["attempts"], outcome.status) == ("succeeded", 2, 401)
    assert capsys.readouterr().out.splitlines() == [f"webhook.test {made['id']}"], "each message once"
