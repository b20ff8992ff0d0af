"""Works off jobs with the real azureml-ai-monitoring: a JSON line in, a JSON line out, until stdin ends.

Jobs: versions, env, open, collect, fill, flush. Answers: {"result": …}, or {"raised": text} when the job itself is at fault.
"""

import json
import os
import sys
import traceback

# The SDK logs to stdout, which is for answers here.
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from azureml.ai.monitoring import Collector  # noqa: E402
from azureml.ai.monitoring.common import __version__ as sdk_version  # noqa: E402
from azureml.ai.monitoring.context import BasicCorrelationContext  # noqa: E402
from azureml.ai.monitoring import init as sdk  # noqa: E402
from frames import FRAMES  # noqa: E402

collectors = {}
errors = []


def described(error):
    return {"type": type(error).__name__, "message": str(error)}


def versions(_job):
    python = "%d.%d" % sys.version_info[:2]
    return {"sdk": sdk_version, "pandas": pd.__version__, "numpy": np.__version__, "python": python}


def env(job):
    """Sets variables, null removes."""
    for name, value in job["set"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def open_collector(job):
    """Makes a collector and keeps it by its name. The answer is what its constructor raised or gave to on_error."""
    errors.clear()
    options = {"on_error": errors.append} if job.get("on_error") else {}
    try:
        collectors[job["collection"]] = Collector(name=job["collection"], **options)
    except Exception as error:  # pylint: disable=broad-except
        return {"raised": described(error), "errors": []}
    return {"raised": None, "errors": [described(error) for error in errors]}


def data_of(job):
    """The frame of that name, or a value that is none."""
    return FRAMES[job["frame"]]() if "frame" in job else job["data"]


def collect(job):
    """Calls collect `times` times, 1 unless told. `outcomes` counts the messages that the SDK's debug mode gives."""
    errors.clear()
    context = job.get("context")
    own = None if context is None else BasicCorrelationContext(**context)
    outcomes = {}
    data = data_of(job)
    try:
        for _ in range(job.get("times", 1)):
            returned = collectors[job["collection"]].collect(data, *([] if own is None else [own]))
            if hasattr(returned, "get_message"):
                outcomes[returned.get_message()] = outcomes.get(returned.get_message(), 0) + 1
    except Exception as error:  # pylint: disable=broad-except
        return {"raised": described(error), "errors": [described(error) for error in errors]}
    return {
        "raised": None,
        "errors": [described(error) for error in errors],
        "id": returned.get_id(),
        "same": returned is own,
        "outcomes": outcomes,
    }


def fill(job):
    """Collects until a call fails: how many did not, and what the caller then sees."""
    for count in range(job["limit"]):
        row = pd.DataFrame([{"n": count}])
        try:
            collectors[job["collection"]].collect(row, BasicCorrelationContext(id="n%d" % count))
        except Exception as error:  # pylint: disable=broad-except
            return {"accepted": count, "error": described(error)}
    return {"accepted": job["limit"], "error": None}


def flush(_job):
    """Sends what is queued and forgets the configuration, so that the next collector reads it anew."""
    sdk.teardown(wait_for_flush=True)
    collectors.clear()


JOBS = {
    "versions": versions,
    "env": env,
    "open": open_collector,
    "collect": collect,
    "fill": fill,
    "flush": flush,
}

for line in sys.stdin:
    try:
        job = json.loads(line)
        answer = {"result": JOBS[job["do"]](job)}
    except Exception:  # pylint: disable=broad-except
        answer = {"raised": traceback.format_exc()}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
