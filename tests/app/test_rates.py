"""Rate limits on a real Valkey: shared by processes, kept per key, let through when nobody is there to count."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.rates import Limit, Rates

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rates(broker_url: str) -> AsyncIterator[Rates]:
    rates = Rates(broker_url)
    yield rates
    await rates.close()


async def test_a_bucket_is_shared_and_fills(rates: Rates, broker_url: str) -> None:
    limit = Limit("key", 4.0, 3)
    other = Rates(broker_url)
    taken = await asyncio.gather(*(one.take(limit, "a") for one in (rates, other) for _ in range(4)))
    assert sorted(one.allowed for one in taken if one) == [False] * 5 + [True] * 3
    refused = await other.take(limit, "a")
    assert refused is not None
    assert 0 < refused.wait_s <= 0.25
    untouched = await other.take(limit, "b")
    assert untouched is not None
    assert untouched.remaining == 2
    await asyncio.sleep(refused.wait_s + 0.01)
    later = await rates.take(limit, "a")
    assert later is not None
    assert later.allowed
    await other.close()


async def test_nothing_is_left_of_a_full_bucket(rates: Rates, redis_url: str) -> None:
    await rates.take(Limit("key", 1000.0, 3), "a")
    await asyncio.sleep(0.05)
    assert rates._redis is not None
    assert await rates._redis.keys("modelpress:*") == []


async def test_who_asks_at_once_takes_one_each(rates: Rates) -> None:
    limit = Limit("key", 0.01, 3)
    taken = await asyncio.gather(*(rates.take(limit, who) for who in "abaaaab"))
    assert [(one.allowed, one.remaining) for one in taken if one] == [
        *((True, 2), (True, 2), (True, 1), (True, 0), (False, 0), (False, 0), (True, 1))
    ]


async def test_a_clock_that_is_set_back(rates: Rates) -> None:
    limit = Limit("key", 10.0, 2)
    await rates.take(limit, "a")
    assert rates._redis is not None
    (bucket,) = await rates._redis.keys("modelpress:rate:*")
    await rates._redis.set(bucket, 10**18)
    refused = await rates.take(limit, "a")
    assert refused is not None
    assert 0 < refused.wait_s <= 0.2


async def test_without_limit_and_without_server(tmp_path: Any) -> None:
    rates = Rates(f"redis+socket://:x@{tmp_path}/nobody?virtual_host=0")
    assert await rates.take(Limit("key", 0.0, 1), "a") is None
    assert [await rates.take(Limit("key", 1.0, 1), "a") for _ in range(2)] == [None, None]
    await rates.close()


async def test_a_broker_of_another_kind() -> None:
    rates = Rates("sentinel://host:26379/0")
    assert await rates.take(Limit("key", 1.0, 1), "a") is None
    await rates.close()


async def test_a_key_that_asks_too_often(make_api: Any) -> None:
    api = await make_api(rate_limit_per_s=0.01, rate_limit_burst=3)
    client, other = await api.client(), await api.client()
    answers = [await client.get("/v1/methods") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"key";q=3;w=300'
    assert answers[0].headers["ratelimit"] == '"key";r=2;t=100'
    assert answers[3].json()["code"] == "rate_limited"
    assert 50 < int(answers[3].headers["retry-after"]) <= 100
    assert (await other.get("/v1/methods")).status_code == 200


async def test_an_address_that_sends_wrong_keys(make_api: Any) -> None:
    api = await make_api(auth_failures_per_min=3)
    good = await api.client()
    key = "mpk_000000000000_00000000000000000000000000000000"
    wrong = api.client_with({"Authorization": f"Bearer {key}"})
    answers = [await wrong.get("/v1/methods") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert answers[3].json()["code"] == "too_many_failures"
    assert int(answers[3].headers["retry-after"]) > 1
    assert (await good.get("/v1/methods")).status_code == 200
    assert (await api.client_with({}).get("/v1/methods")).status_code == 401
    operator = await api.client("operator")
    events = (await operator.get("/v1/audit?action=authenticate")).json()["items"]
    assert [event["outcome"] for event in events] == ["key_invalid"] * 3


async def test_addresses_of_one_network_are_one(make_api: Any) -> None:
    """Whoever has an IPv6 address mostly has the 2**64 of its network."""
    api = await make_api(auth_failures_per_min=1)

    async def fail(address: str) -> int:
        transport = httpx2.ASGITransport(app=api.app, client=(address, 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return int((await client.get("/v1/methods", headers={"Authorization": "Bearer x"})).status_code)

    same = (
        ("2001:db8::1", "2001:db8::ffff:2"),
        ("fe80::1%eth0", "fe80::2%eth0"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("a proxy", "a proxy"),
    )
    for one, other in same:
        assert (await fail(one), await fail(other)) == (401, 429), other
    for another in ("2001:db8:0:1::1", "192.0.2.2", "::ffff:192.0.2.3", "another proxy"):
        assert await fail(another) == 401, another


async def test_it_works_without_the_server(make_api: Any, tmp_path: Any) -> None:
    api = await make_api(broker_url=f"redis+socket://:x@{tmp_path}/nobody?virtual_host=0", rate_limit_burst=1)
    client = await api.client()
    assert [(await client.get("/v1/methods")).status_code for _ in range(3)] == [200] * 3


async def test_nobody_is_counted_without_authentication(make_api: Any) -> None:
    api = await make_api(auth_enabled=False, key_pepper=SecretStr(""), rate_limit_burst=1)
    client = api.client_with({})
    assert [(await client.get("/v1/methods")).status_code for _ in range(3)] == [200] * 3
