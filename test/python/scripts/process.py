"""Tells about its process, and behaves as it is told."""
import json
import os
import sys
import time


def init():
    print("init of process", os.getpid())


def run(data):
    order = json.loads(data)
    time.sleep(order.get("sleep", 0))
    for line in range(order.get("lines", 0)):
        print("line", line)
    if "error" in order:
        raise ValueError(order["error"])
    if "env" in order:
        return {name: os.environ.get(name) for name in order["env"]}
    return {"pid": os.getpid(), "parent": os.getppid(), "prefix": sys.prefix, "cwd": os.getcwd()}
