"""Names the workload of a request that does not name its own and that no route claims.

In: the hash of the request's fixed prompt parts. Out: the name under which the store holds that
prompt, if it is one name; otherwise a name made from the hash. What was found stays in memory, so
the store is asked once a prompt (test_names_ask_the_store_once_a_prompt); a store that cannot be
read names nothing and stops nobody (test_names_do_without_a_store).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from ownweights.core.errors import StoreError
from ownweights.core.project import Project
from ownweights.traffic import TrafficStore
from ownweights.traffic.workload import default_workload

MAX_REMEMBERED = 4096


class WorkloadNames:
    """Workload names by prompt hash; the least recently asked are forgotten."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._known: OrderedDict[str, str] = OrderedDict()

    async def of(self, prompt_hash: str) -> str:
        """The workload that has this prompt."""
        if prompt_hash not in self._known:
            self._known[prompt_hash] = await asyncio.to_thread(self._look_up, prompt_hash)
        self._known.move_to_end(prompt_hash)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return self._known[prompt_hash]

    def _look_up(self, prompt_hash: str) -> str:
        try:
            with TrafficStore.open(self._project, create=False) as store:
                names = store.workloads_of_prompt(prompt_hash)
        except StoreError:
            names = []
        return names[0] if len(names) == 1 else default_workload(prompt_hash)
