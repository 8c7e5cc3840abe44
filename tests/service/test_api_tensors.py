"""Tensors of the Open Inference Protocol: JSON and bytes mean the same."""

import json

import numpy as np
import pytest

from grpo_platform.api.schemas.open_inference import InferRequest
from grpo_platform.api.tensors import HEADER_LENGTH, read_inputs, write_reply
from grpo_platform.core.errors import InvalidObservationError, InvalidRequestError

OUTPUTS = {"action": np.array([1, 0]), "value": np.array([0.5, np.nan])}


def request(shape=(2, 2), data=(1, 2, 3, 4), datatype="FP32", name="observation", **more):
    tensor = {"name": name, "shape": list(shape), "datatype": datatype}
    tensor |= {} if data is None else {"data": data if isinstance(data, list) else list(data)}
    parameters = more.pop("tensor_parameters", None)
    tensor |= {} if parameters is None else {"parameters": parameters}
    return InferRequest.model_validate_json(json.dumps({"inputs": [tensor], **more}))


def test_flat_and_nested_data_are_the_same():
    expected = [[1.0, 2.0], [3.0, 4.0]]
    assert read_inputs(request(), b"")["observation"].tolist() == expected
    assert read_inputs(request(data=[[1, 2], [3, 4]]), b"")["observation"].tolist() == expected


@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", "<f4"), ("FP64", "<f8"), ("INT8", "<i1")])
def test_bytes_after_the_json_are_the_same(datatype, dtype):
    content = np.array([1, 2, 3, 4], dtype).tobytes()
    asked = request(
        data=None, datatype=datatype, tensor_parameters={"binary_data_size": len(content)}
    )
    assert read_inputs(asked, content)["observation"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        (request(shape=(2, 3)), b""),
        (request(shape=()), b""),
        (request(data=["1", 2, 3, 4]), b""),
        (request(data=["x", 2, 3, 4]), b""),
        (request(data=[[1, 2], [3]]), b""),
        (request(data=[None, 2, 3, 4]), b""),
        (request(data=[{}, 2, 3, 4]), b""),
        (request(data=None), b""),
        (request(data=None, tensor_parameters={"binary_data_size": 4}), b"12345"),
        (request(data=None, tensor_parameters={"binary_data_size": 5}), b"12345"),
        (request(data=None, tensor_parameters={"binary_data_size": "5"}), b"12345"),
    ],
)
def test_what_does_not_fill_the_shape_is_refused(asked, content):
    with pytest.raises(InvalidObservationError):
        read_inputs(asked, content)


def both(second: dict, names=("a", "b")) -> InferRequest:
    first = {"name": names[0], "shape": [1, 2], "datatype": "FP32"}
    inputs = [first | {"parameters": {"binary_data_size": 8}}, second | {"name": names[1]}]
    return InferRequest.model_validate_json(json.dumps({"inputs": inputs}))


def test_the_bytes_of_several_tensors_follow_each_other():
    second = {"shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
    content = np.array([0.5, 2.0], "<f4").tobytes() + np.array([7], "<i8").tobytes()
    found = read_inputs(both(second), content)
    assert {name: array.tolist() for name, array in found.items()} == {"a": [[0.5, 2.0]], "b": [7]}
    with pytest.raises(InvalidObservationError):
        read_inputs(both(second), content + b"left")
    with pytest.raises(InvalidObservationError):
        read_inputs(both(second), content[:-1])
    with pytest.raises(InvalidRequestError, match="Two inputs"):
        read_inputs(both(second, ("a", "a")), content)


def test_all_outputs_as_json():
    reply = json.loads(write_reply(request(id="7"), "m", 3, OUTPUTS).body)
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("m", "3", "7")
    action, value = reply["outputs"]
    assert action == {"name": "action", "shape": [2], "datatype": "INT64", "data": [1, 0]}
    assert (value["datatype"], value["data"]) == ("FP64", [0.5, None])


def test_chosen_outputs_as_bytes():
    asked = request(outputs=[{"name": "action", "parameters": {"binary_data": True}}])
    reply = write_reply(asked, "m", 3, OUTPUTS)
    length = int(reply.headers[HEADER_LENGTH])
    (output,) = json.loads(reply.body[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(reply.body[length:], "<i8").tolist() == [1, 0]


def test_outputs_that_do_not_exist_are_refused():
    with pytest.raises(InvalidRequestError, match="there are: action, value"):
        write_reply(request(outputs=[{"name": "x"}]), "m", 3, OUTPUTS)
