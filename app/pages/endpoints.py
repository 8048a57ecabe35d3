"""Every page, in one router."""

from fastapi import APIRouter

from app.pages.assets import router as assets
from app.pages.overview import router as overview
from app.pages.session import router as session

router = APIRouter()
for one in (assets, overview, session):
    router.include_router(one)
