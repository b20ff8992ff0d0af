import pandas as pd
from azureml.ai.monitoring import Collector
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    global inputs_collector
    inputs_collector = Collector(name="model_inputs")


@input_schema("flowers", PandasParameterType(pd.DataFrame({"petal": [1.5], "color": ["red"]})))
@input_schema("factor", StandardPythonParameterType(2.0))
@output_schema(StandardPythonParameterType([3.0]))
def run(flowers, factor):
    inputs_collector.collect(flowers)
    return (flowers["petal"] * factor).tolist()
