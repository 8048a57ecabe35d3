"""``/v1/jobs``."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response

from app.accounts.caller import Member, Reader
from app.accounts.routes import PolledRoute, WorkspaceRoute
from app.jobs import control, service, streams, submission
from app.jobs.leases import Leases
from app.jobs.openapi import inlined
from app.jobs.rendered import Rendered, Wanted
from app.jobs.schemas import EstimateView, JobRequest, JobView
from app.jobs.states import State
from app.web.fields import Text
from app.web.pagination import Page, PageDep
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep, get_services

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=WorkspaceRoute)
router.include_router(streams.router)
polled = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=PolledRoute)

#: When a client may well look at a new job again, in seconds.
RETRY_AFTER = "1"


async def get_leases(services: ServicesDep) -> Leases:
    """What sends the looks."""
    return Leases(services.settings, services.queue)


LeasesDep = Annotated[Leases, Depends(get_leases)]
_BODY = {"requestBody": {"content": {"application/json": {"schema": inlined(JobRequest)}}}}


@router.post("", status_code=202, summary="Queue a job", responses=responses(409), openapi_extra=_BODY)
async def create_job(
    body: Annotated[dict[str, Any], Body()],
    caller: Member,
    session: SessionDep,
    leases: LeasesDep,
    request: Request,
    response: Response,
) -> JobView:
    """Queue a compression job; everything known to be wrong with it is told at once."""
    job = await submission.submit(session, leases, caller.workspace_id, body)
    response.headers["Location"] = str(request.url_for("get_job", job_id=job.id))
    response.headers["Retry-After"] = RETRY_AFTER
    return await service.view(session, request, job)


@router.post(":estimate", summary="Estimate a job", responses=responses(409), openapi_extra=_BODY)
async def estimate_job(
    body: Annotated[dict[str, Any], Body()], caller: Reader, session: SessionDep, leases: LeasesDep
) -> EstimateView:
    """Tell the size of the artifacts, the memory and the time of a job without queueing it."""
    return await submission.estimate(session, leases, caller.workspace_id, body)


@router.get("", summary="List jobs", responses=responses())
async def list_jobs(
    request: Request,
    caller: Reader,
    session: SessionDep,
    page: PageDep,
    state: Annotated[list[State] | None, Query(description="Jobs in one of these states.")] = None,
    name: Annotated[Text | None, Query(description="Jobs of exactly this name.")] = None,
    tag: Annotated[list[Text] | None, Query(description="`key` or `key:value`; all given ones must match.")] = None,
    model_id: Annotated[Text | None, Query(description="Jobs of this model.")] = None,
) -> Page[JobView]:
    """The workspace's jobs, newest first; metrics are the baseline's and the artifacts' alone."""
    filters = service.Filters(states=state or (), name=name, tags=tag or (), model_id=model_id)
    return await service.page(session, request, caller.workspace_id, filters, page)


@polled.get("/{job_id}", summary="Show a job", response_model=JobView, responses=responses(404))
async def get_job(request: Request, job_id: str, caller: Reader) -> Response:
    """One job, with everything that was measured."""

    async def render() -> JobView:
        async with get_services(request).database.transaction() as session:
            return await service.get(session, request, caller.workspace_id, job_id)

    rendered: Rendered = request.app.state.rendered
    scope = request.scope
    address = (scope["scheme"], request.headers.get("host"), scope.get("server"), scope.get("root_path"))
    wanted = Wanted(caller.workspace_id, job_id, address)
    return Response(await rendered.json(wanted, render), media_type="application/json")


@router.post("/{job_id}:cancel", status_code=202, summary="Cancel a job", responses=responses(404, 409))
async def cancel_job(request: Request, job_id: str, caller: Member, session: SessionDep) -> JobView:
    """Cancel a job; a running one is `canceling` until its worker has stopped it."""
    return await service.view(session, request, await control.cancel(session, caller.workspace_id, job_id))


@router.post("/{job_id}:retry", status_code=202, summary="Retry a job", responses=responses(404, 409))
async def retry_job(request: Request, job_id: str, caller: Member, session: SessionDep, leases: LeasesDep) -> JobView:
    """Run a failed or canceled job once more, from its last checkpoint."""
    return await service.view(session, request, await control.retry(session, leases, caller.workspace_id, job_id))


@router.delete("/{job_id}", status_code=204, summary="Delete a job", responses=responses(404, 409))
async def delete_job(job_id: str, caller: Member, session: SessionDep) -> None:
    """Delete a job that is not running, with its artifacts."""
    await control.delete(session, caller.workspace_id, job_id)
