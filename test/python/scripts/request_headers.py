import json

import pandas as pd
from azureml.ai.monitoring import Collector
from azureml.ai.monitoring.context import BasicCorrelationContext


def init():
    global inputs_collector, outputs_collector
    inputs_collector = Collector(name="model_inputs")
    outputs_collector = Collector(name="model_outputs")


def run(data, request_headers):
    input_df = pd.DataFrame(json.loads(data))
    context = inputs_collector.collect(input_df, BasicCorrelationContext(id=request_headers["X-Request-Id"]))
    outputs_collector.collect(input_df * 2, context)
    return {"id": request_headers["X-Request-Id"], "caller": request_headers.get("X-Caller")}
