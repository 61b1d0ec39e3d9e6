"""Run the probe alone with a tcpcopy's options; print its findings as one line of JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from tcpcopy import options
from tcpcopy.cli import copier_config, report_context
from tcpcopy.doctor_probe import probe_targets

if __name__ == "__main__":
    found = options.parse(sys.argv[1:])
    findings = probe_targets(found, copier_config(found), report_context(found))
    print(json.dumps([asdict(finding) for finding in findings]))
