"""Run the probe alone with a tcpcopy's options; print its findings as one line of JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from tcpcopy import options
from tcpcopy.doctor_probe import probe_targets

if __name__ == "__main__":
    findings = probe_targets(options.parse(sys.argv[1:]))
    print(json.dumps([asdict(finding) for finding in findings]))
