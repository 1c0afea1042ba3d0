"""What operators see of the gateway: metrics, how it stands, spans, and its log.

exchange ─ Metrics ─→ /metrics        exchange ─ Spans ─→ OTLP        log line ─→ text or JSON
"""
