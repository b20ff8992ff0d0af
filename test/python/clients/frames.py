"""The frames that the tests collect, by name. Each is made anew, so that a test may change it."""

import datetime
import decimal

import numpy as np
import pandas as pd


class OwnFrame(pd.DataFrame):
    """A subclass: the SDK takes it and names its class."""


def column(values, **options):
    return pd.DataFrame({"v": pd.Series(values, **options)})


def objects(*values):
    return column(list(values), dtype="object")


FRAMES = {
    "int64": lambda: column([2**63 - 1, -(2**63), 2**53 + 1, 0], dtype="int64"),
    "uint64": lambda: column([2**64 - 1, 0], dtype="uint64"),
    "small_ints": lambda: pd.DataFrame({"i8": np.array([-128], "int8"), "u8": np.array([255], "uint8")}),
    "nullable_int": lambda: column([2**53 + 1, None], dtype="Int64"),
    "big_object_int": lambda: objects(2**63 - 1, -1, 2**64 - 1),
    "float64": lambda: column([0.1 + 0.2, 1e-12, 1.0, 1e21, -0.5, 123456789.123456789]),
    "not_finite": lambda: column([float("nan"), float("inf"), float("-inf"), 1.5]),
    "float32": lambda: column(np.array([0.1, 1.0], "float32")),
    "nothing": lambda: objects(None, float("nan"), pd.NaT, pd.NA, 1),
    "bool": lambda: column([True, False]),
    "nullable_bool": lambda: column([True, None], dtype="boolean"),
    "naive_dates": lambda: column(pd.to_datetime(["2024-01-02T03:04:05.678901", None, "1969-12-31T23:59:59.5"])),
    "zoned_dates": lambda: column(pd.to_datetime(["2024-07-01T12:00:00"]).tz_localize("Europe/Berlin")),
    "python_dates": lambda: objects(datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3, 4, 5)),
    "times": lambda: objects(datetime.time(1, 2, 3)),
    "timedelta": lambda: column(pd.to_timedelta(["1 days 00:00:00.5", None])),
    "category": lambda: column(["a", "b", None, "a"], dtype="category"),
    "int_category": lambda: column([3, 1, 3], dtype="category"),
    "nested": lambda: objects([1, [2, None]], {"k": {"l": [True, "x"]}}, np.array([1.5, 2.5]), (1, "a"), {}, []),
    "unicode": lambda: pd.DataFrame({"é€": ["é€😀", "日本", "\u2028", "\x7f"]}),
    "special_text": lambda: pd.DataFrame({"a/b<&>": ["a/b", "<b>&amp;</b>", '"q" \\ \n\t\r\x01', ""]}),
    "bytes": lambda: objects(b"abc", "é".encode()),
    "decimal": lambda: objects(decimal.Decimal("1.10")),
    "complex": lambda: objects(complex(1.5, -2)),
    "set": lambda: objects({7}),
    "labels": lambda: pd.DataFrame([[1, 2]], columns=[0, "1"]),
    "date_labels": lambda: pd.DataFrame([[1]], columns=[pd.Timestamp("2024-01-02")]),
    "multi_labels": lambda: pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])),
    "index_dropped": lambda: pd.DataFrame({"b": [1, 2], "a": ["x", "y"]}, index=["r1", "r2"]),
    "one_row": lambda: pd.DataFrame([{"sepal length": 5.1, "name": "setosa", "n": 1}]),
    "no_rows": lambda: pd.DataFrame({"a": [], "b": []}),
    "no_columns": lambda: pd.DataFrame(),
    "subclass": lambda: OwnFrame({"a": [1]}),
    "outputs": lambda: pd.DataFrame([0, 2, 1]),
    "rows_100000": lambda: pd.DataFrame({"i": np.arange(100_000, dtype="int64") + 2**53}),
    "ten_megabytes": lambda: pd.DataFrame({"n": range(1000), "text": ["é<&>/" + "x" * 10_210] * 1000}),
    "span": lambda: pd.DataFrame([SPAN]),
}

# One span as promptflow's exporter hands it over: a row whose columns are the span's keys.
SPAN = {
    "name": "classify",
    "context": {
        "trace_id": "0x4f4ef6f1cdbf4a9cb2c0ac1db2b1d0a5",
        "span_id": "0x7f21e3f8f4b4a1c2",
        "trace_state": "",
    },
    "kind": "1",
    "parent_id": None,
    "start_time": "2024-03-01T10:00:00.000001Z",
    "end_time": "2024-03-01T10:00:00.660002Z",
    "status": {"status_code": "Ok", "description": ""},
    "attributes": {
        "framework": "promptflow",
        "span_type": "Flow",
        "inputs": '{"question": "is 1 < 2 && 3 > 2?"}',
        "output": '{"answer": "yes / да"}',
        "request_id": "0d1b6d1b-6f0a-4b0e-8a0e-0a5c3b2f1e10",
        "line_run_id": "6d0c9f1e-8b4e-4a62-9f53-2ab5ec1cf0a1",
        "__computed__.cumulative_token_count.total": 42,
    },
    "events": [{"name": "promptflow.function.inputs", "timestamp": "2024-03-01T10:00:00.000002Z", "attributes": {}}],
    "links": [],
    "resource": {"attributes": {"service.name": "promptflow"}, "schema_url": ""},
}
