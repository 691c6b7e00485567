from __future__ import annotations

import pytest

from tests.support.admin import Admin
from tests.support.agents import RawAgent
from tests.support.fixtures import admin, folder, site, template
from tests.support.in_process import LocalSite

__all__ = ["admin", "folder", "site", "template"]


@pytest.fixture
async def agent(site: LocalSite, admin: Admin) -> RawAgent:
    """An enrolled agent that has not come yet."""
    _, token = await admin.token()
    return await site.enroll("node-1", token)
