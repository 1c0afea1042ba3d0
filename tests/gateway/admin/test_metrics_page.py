"""What /metrics says after requests of every outcome, read by Prometheus's own parser."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from ownweights.core.project import Project
from ownweights.gateway import Gateway, GatewaySettings, Upstream
from ownweights.gateway.admin.app import Admin
from tests.gateway.admin.test_app import get
from tests.gateway.harness import WAIT_S, Engines, KeptRecords
from tests.teacher.servers import asked, completion, json_answer, running, talking

SECRET = "sk-secret and a prompt"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
GOOD = json_answer(json.dumps(completion(SECRET, usage=USAGE)).encode())
ANSWERS = {
    200: GOOD, 400: json_answer(b"{}", "400 Bad"), 429: json_answer(b"{}", "429 Busy"),
    500: json_answer(b"{}", "500 Oops"), 502: json_answer(b"not json"),
}  # fmt: skip
ASKED = [("a", 200), ("a", 200), ("b", 200), ("a", 400), ("b", 429), ("b", 500), ("a", 502)] * 3


def test_admin_metrics_agree_with_what_was_asked(tmp_path: Path) -> None:
    kept = KeptRecords()
    with talking(lambda index: ANSWERS[ASKED[index][1]]) as talk:
        settings = GatewaySettings(
            teachers={"main": Upstream("main", talk.base_url)}, default_teacher="main"
        )
        app = Gateway(Project(tmp_path), settings, start_engine=Engines(), recorder=kept)
        admin = Admin(app, "127.0.0.1")
        with running(app) as url:
            for workload, status in ASKED:
                headers = {"x-own-workload": workload}
                answer = httpx.post(
                    f"{url}/v1/chat/completions", json=asked(SECRET), headers=headers,
                    timeout=WAIT_S,
                )  # fmt: skip
                assert answer.status_code == status
            kept.wait(len(ASKED))
            text = get(admin, "/metrics").text
        admin.close()
    assert "secret" not in text and text.endswith("\n")
    requests: Counter[tuple[str, str]] = Counter()
    families = list(text_string_to_metric_families(text))
    for family in families:
        assert family.documentation and family.type != "unknown", family.name
        for one in family.samples:
            assert one.name.startswith(("own_", "process_", "python_")), one.name
            if one.name == "own_gateway_requests_total":
                requests[one.labels["workload"], one.labels["status"]] += int(one.value)
    assert len({family.name for family in families}) == len(families)
    assert +requests == Counter((name, f"{status // 100}xx") for name, status in ASKED)
    assert len(kept.records) == len(ASKED) == len(talk.requests)
