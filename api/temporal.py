"""The front door's only line to Temporal: starting workflows for rows that are already committed."""

import asyncio

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from activities.curation import Run
from activities.files import Batch
from workflows import curation
from workflows.archive_stale import ArchiveStaleWorkflow
from workflows.dedup import DedupWorkflow
from workflows.drop import DropWorkflow, workflow_id
from workflows.policies import TASK_QUEUE, fair_to

# Against a dead server a start blocks for 8 to 10 s, and its own timeout does not shorten that.
START_SECONDS = 2.0

log = structlog.stdlib.get_logger(__name__)


class WorkflowClient:
    """Connects on first use, so that the API starts and serves while Temporal is down."""

    def __init__(self, address: str, namespace: str) -> None:
        self._address = address
        self._namespace = namespace
        self._client: Client | None = None

    async def start_drop(self, tenant_id: str, batch_id: str, anew: bool = False) -> bool:
        """Starts the drop of a committed batch, or finds it running.

        `anew` puts a run in place of one that has nothing left to do but to end. False when Temporal does not take it
        in time: the batch stays queued and the sweep starts it.
        """
        try:
            await asyncio.wait_for(self._start_drop(tenant_id, batch_id, anew), START_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the batch is safe in its row
            log.warning("drop not started; the sweep will", batch_id=batch_id, error=type(error).__name__)
            return False
        return True

    async def start_curation(self, kind: str, tenant_id: str, run_id: str) -> bool:
        """Starts a committed run of curation, or finds it running.

        False when Temporal does not take it in time: the run stays queued and the next round starts it.
        """
        try:
            await asyncio.wait_for(self._start_curation(kind, Run(tenant_id, run_id)), START_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is safe in its row
            log.warning("run not started; the next round will", run_id=run_id, error=type(error).__name__)
            return False
        return True

    async def _start_curation(self, kind: str, run: Run) -> None:
        client = await self._connected()
        await client.start_workflow(
            DedupWorkflow.run if kind == curation.DEDUP else ArchiveStaleWorkflow.run,
            run,
            id=curation.workflow_id(kind, run.run_id),
            priority=fair_to(run.tenant_id),
            task_queue=TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )

    async def _start_drop(self, tenant_id: str, batch_id: str, anew: bool) -> None:
        client = await self._connected()
        await client.start_workflow(
            DropWorkflow.run,
            Batch(tenant_id, batch_id),
            id=workflow_id(batch_id),
            priority=fair_to(tenant_id),
            task_queue=TASK_QUEUE,
            id_conflict_policy=(
                WorkflowIDConflictPolicy.TERMINATE_EXISTING if anew else WorkflowIDConflictPolicy.USE_EXISTING
            ),
        )

    async def _connected(self) -> Client:
        if self._client is None:
            self._client = await Client.connect(self._address, namespace=self._namespace, lazy=True)
        return self._client
