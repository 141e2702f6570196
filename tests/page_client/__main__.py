"""`python page_client READY NEEDS WIRE`: a client written from docs/protocol.md alone asserts its rules at a node.

READY is a file with the node's line of JSON, NEEDS the kind of node, WIRE one of json, binary, quic, webtransport.
A fourth word lets only the checks run whose name has it.
"""

import asyncio
import json
import sys

import catching_up  # noqa: F401, each adds its rules
import connecting  # noqa: F401
import ending  # noqa: F401
import erasure  # noqa: F401
import frames  # noqa: F401
import groups  # noqa: F401
import http_api  # noqa: F401
import sending  # noqa: F401
from client import Node
from rule import run

ready, needs, wire, *only = sys.argv[1:]
node = Node(json.loads(open(ready).read()))
failed = asyncio.run(run(node, needs, wire, *only))
sys.exit(1 if failed else 0)
