"""The rules of the page that are asserted, by their marks there, and how they are run."""

import asyncio
import sys
import traceback

from client import WIRES

# A rule that takes so long, in seconds, hangs.
TIME = 120
BINARY = ("binary", "quic", "webtransport")
STREAMS = ("quic", "webtransport")
RULES = []


class Rule:
    def __init__(self, check, marks, wires, needs):
        self.check, self.marks, self.wires, self.needs = check, marks, wires, needs


def rule(*marks, wires=WIRES, needs="loose"):
    """A check of the rules with these marks on the page; `needs` says which node it is for."""
    def keep(check):
        RULES.append(Rule(check, marks, wires, needs))
        return check
    return keep


async def run(node, needs, wire, only=None):
    """Runs what is for this node and wire. The number of failures."""
    failed = 0
    for entry in RULES:
        name = entry.check.__name__
        if entry.needs != needs or wire not in entry.wires or (only and only not in name):
            continue
        try:
            await asyncio.wait_for(entry.check(node, wire), TIME)
            print(f"ok {wire} {name}: {' '.join(entry.marks)}", flush=True)
        except Exception:  # whatever it is, the next rule is tried
            failed += 1
            print(f"FAILED {wire} {name}: {' '.join(entry.marks)}", flush=True)
            traceback.print_exc(file=sys.stdout)
    return failed


def refused(answer, code, **more):
    """The answer is an error of this code that says what it is about."""
    assert answer["type"] == "error" and answer["code"] == code, answer
    for name, value in more.items():
        assert answer[name] == value, (name, value, answer)
    return answer
