"""FastAPI, uvicorn with two workers and an asyncpg pool, under load from wrk: whose await is it?"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import uvicorns
from coded_loads import free_port
from exact import facts
from tracing import APPS, COMMAND, Traced, load_lab

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_each_requests_task_has_its_two_answers(loop: str, tmp_path: Path) -> None:
    """Both workers are in one trace; each request is one task, its queries' bytes are exact."""
    port = free_port()
    run = [str(COMMAND), "run", "-o", str(tmp_path / "t"), "--"]
    with load_lab().private_postgres("lo") as lab:
        environment = {"DSN": lab.dsn, "TRUTH": str(tmp_path)}
        with uvicorns.serving(run, port, loop, environment):
            uvicorns.load(port, 2, "--script", str(APPS / "serials.lua"))
    told = [row for file in tmp_path.glob("*.json") for row in json.loads(file.read_text())]
    trace = Traced(tmp_path / "t", {"rows": told})
    assert trace.info["lost_total"] == 0
    # each serial was asked for once, so no other request has these lengths
    assert set(Counter(row["serial"] for row in told).values()) == {2}
    found = trace.awaits_at("fastapi_pg.py", "# noted")
    assert facts(found, "task_name") == facts(told, "task")
    assert {row["attribution"] for row in found} == {"exact"}
    served = Counter(row["tgid"] for row in told)
    assert len(served) == uvicorns.WORKERS
    tasks = {row["task_id"]: row for row in trace.tasks if row["coroutine"].endswith(".run_asgi")}
    assert Counter(row["task_id"] for row in found) == Counter(dict.fromkeys(tasks, 2))
    assert Counter(row["tgid"] for row in tasks.values() for _ in range(2)) == served
