"""A worker of workflows as a process: says each step that it begins, and kills itself where it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from controlplane.workflows import FIRST, Workflows

STEPS = {FIRST: "second", "second": "third", "third": ""}


async def _main(url: str, worker_id: str, dies_in: str, dies_after: str, *commands: str) -> None:
    async def step(workflow_id: str, name: str) -> str:
        print("step", workflow_id, name, flush=True)
        if name == dies_in:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == dies_after:
            # After its result is kept, before the next one has told anything.
            asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGKILL)
        if name == "third":
            print("ended", workflow_id, flush=True)
        return STEPS[name]

    workflows = Workflows(url, worker_id, step)
    await workflows.start()
    print("started", flush=True)
    for command in commands:
        verb, _, argument = command.partition(":")
        if verb == "queue":
            await workflows.queue(argument)
        else:
            taken = await workflows.take_over([worker_id, *filter(None, argument.split(","))])
            print("took", *taken, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await workflows.stop()


asyncio.run(_main(*sys.argv[1:]))
