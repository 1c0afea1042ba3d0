"""The operator's own door: metrics, readiness in detail, and pages of what was recorded.

GET ─ host is ours? ─ /metrics, /health, /ready
                    └ pages ─ one reading thread ─ rows ─→ HTML without scripts
"""
