"""The door: OpenAI-compatible HTTP, answered by a student or passed to the teacher, and recorded.

request ─ Exchange ─ route? ─ eligible? ─ Students ─ decide ─→ student's answer
                        └────────┴───────────┴─────────┴────→ TeacherDoor, byte for byte
"""

from ownweights.gateway.app import Gateway
from ownweights.gateway.run import Background, background, run_gateway
from ownweights.gateway.settings import GatewaySettings, Upstream
from ownweights.gateway.students import Engine, StartEngine

__all__ = [
    "Background",
    "Engine",
    "Gateway",
    "GatewaySettings",
    "StartEngine",
    "Upstream",
    "background",
    "run_gateway",
]
