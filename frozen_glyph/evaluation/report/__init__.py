"""From what was measured of every item to report.json, report.md and report.html; no model in sight."""
