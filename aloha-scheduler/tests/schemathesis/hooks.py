"""What schemathesis must not do to a real master: wait for minutes, have bash run random text, use a key twice."""

import itertools
import os
import re

import schemathesis

# A longer wait shows nothing more.
TIMEOUT_MAX = 0.2
KEY = "Idempotency-Key"
numbers = itertools.count()


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Shortens what is valid and would take long; whatever is invalid is sent as it is."""
    if case.path.endswith("/wait"):
        query = dict(case.query or {})
        if timeout_is_long(query.get("timeout", TIMEOUT_MAX + 1)):
            query["timeout"] = TIMEOUT_MAX
            case.query = query
    follows = case.path.endswith("/logs") and str((case.query or {}).get("follow")) in ("true", "True")
    if follows and not has_worker():
        # Nothing ever ends here.
        case.query = dict(case.query, follow="false")
    key = (case.headers or {}).get(KEY)
    if isinstance(key, str) and re.fullmatch("[!-~]{1,100}", key):
        # Used before, it would stand for an application that may be forgotten since.
        case.headers = dict(case.headers, **{KEY: f"{key}-{next(numbers)}"})
    if has_worker() and isinstance(case.body, dict):
        make_harmless(case.body)


def has_worker():
    return os.environ.get("ALOHA_HAS_WORKER") == "1"


def timeout_is_long(timeout):
    try:
        return TIMEOUT_MAX < float(timeout) <= 60
    except (TypeError, ValueError):
        return False


def make_harmless(body):
    """Leaves the form of the arguments, and has them run nothing but `true`."""
    args = body.get("args")
    if isinstance(args, str) and "\0" not in args:
        body["args"] = "true"
    elif isinstance(args, list) and args and all(isinstance(arg, str) and "\0" not in arg for arg in args):
        body["args"] = ["true"] * len(args)
