"""The messages and methods of the API, made from modelgate.binpb, which clients/python/generate.sh writes.

The descriptors live in a pool of their own. So no other package's copy of google/rpc/status.proto can be in their way, and no
version of protobuf from 4.22 on is the wrong one, as it would be for generated code.
"""

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _load() -> descriptor_pool.DescriptorPool:
    data = resources.files(__name__).joinpath("modelgate.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_pool = _load()


def message(name: str) -> Any:
    """The class of a message, by its name: "modelgate.v1.PredictRequest"."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


def has_method(service: str, method: str) -> bool:
    """Whether the API that this package was made from has a method."""
    return method in _pool.FindServiceByName(service).methods_by_name


PREDICTION_SERVICE = "modelgate.v1.PredictionService"
MODEL_SERVICE = "modelgate.v1.ModelService"


class Stub:
    """The methods of one service on a channel, as attributes."""

    def __init__(self, channel: Any, service: str) -> None:
        for method in _pool.FindServiceByName(service).methods:
            kind = ("stream" if method.client_streaming else "unary") + "_" + ("stream" if method.server_streaming else "unary")
            request = message_factory.GetMessageClass(method.input_type)
            response = message_factory.GetMessageClass(method.output_type)
            call = getattr(channel, kind)(
                f"/{service}/{method.name}", request_serializer=request.SerializeToString, response_deserializer=response.FromString
            )
            setattr(self, method.name, call)
