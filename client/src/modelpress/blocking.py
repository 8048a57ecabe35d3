"""The nouns without `await`: the same coroutines, run to their end on a `BlockingWire`."""

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from modelpress import nouns
from modelpress.jobs import AsyncJobs
from modelpress.wire import drive

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N")
N_co = TypeVar("N_co", covariant=True)


class Blocking(Generic[N_co]):
    """A noun whose methods block."""

    def __init__(self, noun: N_co) -> None:
        self._noun = noun


def call(method: Callable[Concatenate[N, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Blocking[N], P], T]:
    """A coroutine method as one that blocks."""

    @functools.wraps(method)
    def blocking(self: Blocking[N], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return drive(method(self._noun, *args, **kwargs))

    return blocking


def iterate(
    method: Callable[Concatenate[N, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Blocking[N], P], Iterator[T]]:
    """An asynchronous generator method as a plain generator."""

    @functools.wraps(method)
    def blocking(self: Blocking[N], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return _iterate(method(self._noun, *args, **kwargs))

    return blocking


def _iterate(source: AsyncGenerator[T]) -> Iterator[T]:
    async def following() -> T:
        return await anext(source)

    try:
        while True:
            try:
                item = drive(following())
            except StopAsyncIteration:
                return
            yield item
    finally:
        drive(source.aclose())


class Models(Blocking[nouns.AsyncModels]):
    """`/v1/models`."""

    upload = call(nouns.AsyncModels.upload)
    page = call(nouns.AsyncModels.page)
    list = iterate(nouns.AsyncModels.list)
    get = call(nouns.AsyncModels.get)
    wait = call(nouns.AsyncModels.wait)
    download = call(nouns.AsyncModels.download)
    delete = call(nouns.AsyncModels.delete)


class Datasets(Blocking[nouns.AsyncDatasets]):
    """`/v1/datasets`."""

    upload = call(nouns.AsyncDatasets.upload)
    page = call(nouns.AsyncDatasets.page)
    list = iterate(nouns.AsyncDatasets.list)
    get = call(nouns.AsyncDatasets.get)
    wait = call(nouns.AsyncDatasets.wait)
    download = call(nouns.AsyncDatasets.download)
    delete = call(nouns.AsyncDatasets.delete)


class Jobs(Blocking[AsyncJobs]):
    """`/v1/jobs`."""

    create = call(AsyncJobs.create)
    estimate = call(AsyncJobs.estimate)
    page = call(AsyncJobs.page)
    list = iterate(AsyncJobs.list)
    get = call(AsyncJobs.get)
    wait = call(AsyncJobs.wait)
    events = iterate(AsyncJobs.events)
    logs = call(AsyncJobs.logs)
    cancel = call(AsyncJobs.cancel)
    retry = call(AsyncJobs.retry)
    delete = call(AsyncJobs.delete)


class Artifacts(Blocking[nouns.AsyncArtifacts]):
    """`/v1/artifacts`."""

    get = call(nouns.AsyncArtifacts.get)
    manifest = call(nouns.AsyncArtifacts.manifest)
    signature = call(nouns.AsyncArtifacts.signature)
    bom = call(nouns.AsyncArtifacts.bom)
    download = call(nouns.AsyncArtifacts.download)


class Methods(Blocking[nouns.AsyncMethods]):
    """`/v1/methods`."""

    page = call(nouns.AsyncMethods.page)
    list = iterate(nouns.AsyncMethods.list)


class Targets(Blocking[nouns.AsyncTargets]):
    """`/v1/targets`."""

    page = call(nouns.AsyncTargets.page)
    list = iterate(nouns.AsyncTargets.list)


class Presets(Blocking[nouns.AsyncPresets]):
    """`/v1/presets`."""

    page = call(nouns.AsyncPresets.page)
    list = iterate(nouns.AsyncPresets.list)


class Workspaces(Blocking[nouns.AsyncWorkspaces]):
    """`/v1/workspaces`: for operators."""

    create = call(nouns.AsyncWorkspaces.create)
    page = call(nouns.AsyncWorkspaces.page)
    list = iterate(nouns.AsyncWorkspaces.list)


class Keys(Blocking[nouns.AsyncKeys]):
    """`/v1/keys`."""

    create = call(nouns.AsyncKeys.create)
    page = call(nouns.AsyncKeys.page)
    list = iterate(nouns.AsyncKeys.list)
    delete = call(nouns.AsyncKeys.delete)
