"""The nouns without `await`: the same coroutines, run to their end on a `BlockingWire`."""

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

from modelpress import administration, nouns
from modelpress.jobs import AsyncJobs, AsyncLiveJob
from modelpress.live import Live
from modelpress.resumable import AsyncUploads
from modelpress.views import Artifact, Job, Page
from modelpress.wire import drive

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
N = TypeVar("N")
N_co = TypeVar("N_co", covariant=True)


class Blocking(Live[N_co]):
    """A noun, or an object that acts, whose methods block; it holds its asynchronous twin."""


@overload
def call(method: Callable[Concatenate[N, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Blocking[N], P], T]: ...


@overload
def call(
    method: Callable[Concatenate[N, P], Coroutine[Any, Any, T]], into: Callable[[T], R]
) -> Callable[Concatenate[Blocking[N], P], R]: ...


def call(method: Callable[..., Coroutine[Any, Any, Any]], into: Callable[[Any], Any] | None = None) -> Any:
    """A coroutine method as one that blocks; `into` makes what it answers blocking too."""

    @functools.wraps(method)
    def blocking(self: Blocking[Any], /, *args: Any, **kwargs: Any) -> Any:
        answer = drive(method(self._noun, *args, **kwargs))
        return answer if into is None else into(answer)

    return blocking


@overload
def iterate(
    method: Callable[Concatenate[N, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Blocking[N], P], Iterator[T]]: ...


@overload
def iterate(
    method: Callable[Concatenate[N, P], AsyncGenerator[T]], into: Callable[[T], R]
) -> Callable[Concatenate[Blocking[N], P], Iterator[R]]: ...


def iterate(method: Callable[..., AsyncGenerator[Any]], into: Callable[[Any], Any] | None = None) -> Any:
    """An asynchronous generator method as a plain generator."""

    @functools.wraps(method)
    def blocking(self: Blocking[Any], /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        items = _iterate(method(self._noun, *args, **kwargs))
        return items if into is None else map(into, items)

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


class LiveArtifact(Artifact, Blocking[nouns.AsyncLiveArtifact]):
    """An artifact of a `Client`."""

    @classmethod
    def of(cls, twin: nouns.AsyncLiveArtifact) -> Self:
        """The same artifact, blocking."""
        made = cls.parse(twin.raw)
        made._bind(twin)
        return made

    download = call(nouns.AsyncLiveArtifact.download)
    get_manifest = call(nouns.AsyncLiveArtifact.get_manifest)
    signature = call(nouns.AsyncLiveArtifact.signature)
    bom = call(nouns.AsyncLiveArtifact.bom)


def _live(job: AsyncLiveJob) -> "LiveJob":
    return LiveJob.of(job)


class LiveJob(Job, Blocking[AsyncLiveJob]):
    """A job of a `Client`. What it holds stays as it was answered; `refresh` and `wait` answer a newer one."""

    @classmethod
    def of(cls, twin: AsyncLiveJob) -> "LiveJob":
        """The same job, blocking."""
        made = cls.parse(twin.raw)
        made._bind(twin)
        return made

    refresh = call(AsyncLiveJob.refresh, _live)
    wait = call(AsyncLiveJob.wait, _live)
    events = iterate(AsyncLiveJob.events)
    follow = call(AsyncLiveJob.follow, _live)
    logs = call(AsyncLiveJob.logs)
    cancel = call(AsyncLiveJob.cancel, _live)
    retry = call(AsyncLiveJob.retry, _live)
    delete = call(AsyncLiveJob.delete)

    def artifact(self, target: str | None = None) -> LiveArtifact:
        """What it made for `target`; without one, where it has just one target.

        Raises:
            NoArtifact: there is none; the message says what there is.
        """
        return LiveArtifact.of(self._noun.artifact(target))


def _live_page(page: Page[AsyncLiveJob]) -> Page[LiveJob]:
    return Page(tuple(map(_live, page.items)), page.next_cursor)


class BlockingNoun(Blocking[N_co]):
    """A noun of a `Client`."""

    def __init__(self, noun: N_co) -> None:
        self._bind(noun)


class Models(BlockingNoun[nouns.AsyncModels]):
    """`/v1/models`."""

    upload = call(nouns.AsyncModels.upload)
    create = call(nouns.AsyncModels.create)
    page = call(nouns.AsyncModels.page)
    list = iterate(nouns.AsyncModels.list)
    get = call(nouns.AsyncModels.get)
    wait = call(nouns.AsyncModels.wait)
    download = call(nouns.AsyncModels.download)
    delete = call(nouns.AsyncModels.delete)


class Datasets(BlockingNoun[nouns.AsyncDatasets]):
    """`/v1/datasets`."""

    upload = call(nouns.AsyncDatasets.upload)
    create = call(nouns.AsyncDatasets.create)
    page = call(nouns.AsyncDatasets.page)
    list = iterate(nouns.AsyncDatasets.list)
    get = call(nouns.AsyncDatasets.get)
    wait = call(nouns.AsyncDatasets.wait)
    download = call(nouns.AsyncDatasets.download)
    delete = call(nouns.AsyncDatasets.delete)


class Jobs(BlockingNoun[AsyncJobs]):
    """`/v1/jobs`."""

    create = call(AsyncJobs.create, _live)
    estimate = call(AsyncJobs.estimate)
    page = call(AsyncJobs.page, _live_page)
    list = iterate(AsyncJobs.list, _live)
    get = call(AsyncJobs.get, _live)
    wait = call(AsyncJobs.wait, _live)
    events = iterate(AsyncJobs.events)
    logs = call(AsyncJobs.logs)
    cancel = call(AsyncJobs.cancel, _live)
    retry = call(AsyncJobs.retry, _live)
    delete = call(AsyncJobs.delete)


class Artifacts(BlockingNoun[nouns.AsyncArtifacts]):
    """`/v1/artifacts`."""

    get = call(nouns.AsyncArtifacts.get, LiveArtifact.of)
    manifest = call(nouns.AsyncArtifacts.manifest)
    signature = call(nouns.AsyncArtifacts.signature)
    bom = call(nouns.AsyncArtifacts.bom)
    signing_key = call(nouns.AsyncArtifacts.signing_key)
    download = call(nouns.AsyncArtifacts.download)
    packages = call(nouns.AsyncArtifacts.packages)
    package = call(nouns.AsyncArtifacts.package)


class Methods(BlockingNoun[nouns.AsyncMethods]):
    """`/v1/methods`."""

    page = call(nouns.AsyncMethods.page)
    list = iterate(nouns.AsyncMethods.list)


class Targets(BlockingNoun[nouns.AsyncTargets]):
    """`/v1/targets`."""

    page = call(nouns.AsyncTargets.page)
    list = iterate(nouns.AsyncTargets.list)


class Presets(BlockingNoun[nouns.AsyncPresets]):
    """`/v1/presets`."""

    page = call(nouns.AsyncPresets.page)
    list = iterate(nouns.AsyncPresets.list)


class Workspaces(BlockingNoun[administration.AsyncWorkspaces]):
    """`/v1/workspaces`: for operators."""

    create = call(administration.AsyncWorkspaces.create)
    update = call(administration.AsyncWorkspaces.update)
    page = call(administration.AsyncWorkspaces.page)
    list = iterate(administration.AsyncWorkspaces.list)


class Keys(BlockingNoun[administration.AsyncKeys]):
    """`/v1/keys`."""

    create = call(administration.AsyncKeys.create)
    rotate = call(administration.AsyncKeys.rotate)
    page = call(administration.AsyncKeys.page)
    list = iterate(administration.AsyncKeys.list)
    delete = call(administration.AsyncKeys.delete)


class Webhooks(BlockingNoun[administration.AsyncWebhooks]):
    """`/v1/webhooks`: for admins."""

    create = call(administration.AsyncWebhooks.create)
    update = call(administration.AsyncWebhooks.update)
    rotate = call(administration.AsyncWebhooks.rotate)
    test = call(administration.AsyncWebhooks.test)
    deliveries = iterate(administration.AsyncWebhooks.deliveries)
    redeliver = call(administration.AsyncWebhooks.redeliver)
    page = call(administration.AsyncWebhooks.page)
    list = iterate(administration.AsyncWebhooks.list)
    get = call(administration.AsyncWebhooks.get)
    delete = call(administration.AsyncWebhooks.delete)


class Audit(BlockingNoun[administration.AsyncAudit]):
    """`/v1/audit`: for admins."""

    page = call(administration.AsyncAudit.page)
    list = iterate(administration.AsyncAudit.list)


class UsageNow(BlockingNoun[administration.AsyncUsage]):
    """`/v1/usage`."""

    get = call(administration.AsyncUsage.get)


class Uploads(BlockingNoun[AsyncUploads]):
    """`/v1/uploads`: bytes on their way to become a model or dataset."""

    limits = call(AsyncUploads.limits)
    send = call(AsyncUploads.send)
    get = call(AsyncUploads.get)
    delete = call(AsyncUploads.delete)
