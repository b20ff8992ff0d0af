import json
import logging

import pandas as pd
from azureml.ai.monitoring import Collector

# The server has taken the root logger already.
logging.basicConfig(level=logging.INFO, force=True)


def init():
    global inputs_collector
    inputs_collector = Collector(name='model_inputs', on_error=lambda e: logging.info("ex:{}".format(e)))


def run(data):
    rows = json.loads(data)
    inputs_collector.collect(rows)  # a list: the collector takes data frames only
    inputs_collector.collect(pd.DataFrame(rows))
    return len(rows)
