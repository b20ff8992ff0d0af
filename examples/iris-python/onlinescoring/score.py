import json
import os

import onnxruntime
import pandas as pd
from azureml.ai.monitoring import Collector

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
SPECIES = ["setosa", "versicolor", "virginica"]


def init():
    global inputs_collector, outputs_collector, session

    # The names of the collectors are those that the deployment YAML enables.
    inputs_collector = Collector(name="model_inputs")
    outputs_collector = Collector(name="model_outputs")

    # As in Azure ML: what `model.path` names lies in AZUREML_MODEL_DIR under its own name.
    path = os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "iris.onnx")
    session = onnxruntime.InferenceSession(path)


def run(data):
    # JSON: { "data": { "sepal_length": [5.1, 6.3], "sepal_width": [3.5, 2.8], … } }
    input_df = pd.DataFrame(json.loads(data)["data"])

    # Collect the inputs, keep the correlation context.
    context = inputs_collector.collect(input_df)

    output_df = predict(input_df)

    # Collect the outputs under the same context, so that they can be joined with their inputs later.
    outputs_collector.collect(output_df, context)

    return output_df.to_dict(orient="list")


def predict(input_df):
    label, probabilities = session.run(None, {"input": input_df[FEATURES].to_numpy(dtype="float32")})
    columns = {f"probability_{name}": probabilities[:, index].round(6) for index, name in enumerate(SPECIES)}
    return pd.DataFrame({"species": label, **columns})
