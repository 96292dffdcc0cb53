"""Writes client/xai_console/alerts.json from alerts.yml and the runbook. Run this after a change; a test compares.

The console is installed without this folder. The Chinese texts, in alerts.zh.json beside it, are written by hand.
"""

import json
import re
from pathlib import Path

import yaml

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "client" / "xai_console" / "alerts.json"


def text():
    """Every alert with what the runbook says of it, as JSON."""
    runbook = (HERE.parent / "RUNBOOK.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    groups = yaml.safe_load((HERE / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    return json.dumps([alert(rule, sections[rule["alert"]]) for rule in rules], indent=1, ensure_ascii=False) + "\n"


def alert(rule, section):
    """An alert, with its section of the runbook in parts."""
    parts = re.findall(r"\*\*(.+?)\.\*\* (.*?)(?=\n\n|\Z)", section, re.DOTALL)
    said = {title: " ".join(part.split()) for title, part in parts}
    return {
        "name": rule["alert"],
        "summary": rule["annotations"]["summary"],
        "after": rule.get("for", ""),
        "means": said["Means"],
        "look_at": said["Look at"],
        "do": said["Do"],
    }


if __name__ == "__main__":
    OUT.write_text(text())
