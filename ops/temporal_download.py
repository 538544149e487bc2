"""Run as a program: has the Temporal SDK download its server into a folder. It is killed when that takes too long."""

import asyncio
import os
import sys

from temporalio.testing import WorkflowEnvironment


async def download(folder: str, version: str) -> None:
    """The SDK downloads only on the way to starting a server, so one is started and ended."""
    server = await WorkflowEnvironment.start_local(
        download_dest_dir=folder, dev_server_download_version=version, dev_server_log_level="error"
    )
    await server.shutdown()


if __name__ == "__main__":
    code = 0
    try:
        asyncio.run(download(sys.argv[1], sys.argv[2]))
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        code = 1
    # After a failed download the SDK's threads can crash the interpreter while it shuts down.
    os._exit(code)
