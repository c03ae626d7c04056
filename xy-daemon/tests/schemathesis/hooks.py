"""What is changed in the requests that schemathesis makes up, so that they can be sent to a real daemon."""

import zlib

import schemathesis

SERVERS = ["nap", "rest", "group", "group/a"]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Every second server is one that there is, a followed log has no end, and no invented program is run."""
    name = (case.path_parameters or {}).get("path")
    if isinstance(name, str) and zlib.crc32(name.encode()) % 2 == 0:
        case.path_parameters["path"] = SERVERS[zlib.crc32(name.encode()) // 2 % len(SERVERS)]
    if case.operation.path.endswith("/logs") and isinstance(case.query, dict):
        case.query.pop("follow", None)
    if case.operation.path == "/v1/servers" and isinstance(case.body, dict):
        if isinstance(case.body.get("command"), str):
            case.body["command"] = "/bin/sleep"
            case.body["args"] = ["1000"]
