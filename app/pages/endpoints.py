"""Every page, in one router."""

from fastapi import APIRouter

from app.pages.assets import router as assets
from app.pages.datasets import router as datasets
from app.pages.jobs import router as jobs
from app.pages.models import router as models
from app.pages.overview import router as overview
from app.pages.session import router as session
from app.pages.settings import router as settings

router = APIRouter()
for one in (assets, overview, jobs, models, datasets, settings, session):
    router.include_router(one)
