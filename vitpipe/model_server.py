"""Ask a server that speaks TensorFlow Serving's protocols: REST, or gRPC.

Each protocol imports its library when it is used. REST needs no TensorFlow; the messages of gRPC bring it along.
"""

import base64
import io
import json
import textwrap
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote

import tenacity

from components.errors import ServerError

SIGNATURE = "serving_bytes"  # trainer/serving.py
BATCH_IMAGES = 32
BATCH_BYTES = 2 << 20  # 2.7 MiB in base64; a gRPC server that sets no limit of its own takes no message above 4
TRIES = 4


class _Passing(ServerError):
    """What may be over at the next try."""


class Server(NamedTuple):
    address: str  # HOST:PORT
    model: str
    grpc: bool = False
    connect_s: float = 5
    answer_s: float = 30
    back_off_s: float = 0.5  # before the second try, then doubled; chance adds up to as much as this to each


class Answer(NamedTuple):
    valid: bool
    name: str  # of the class; empty when not valid
    probabilities: list[float]


def ask(server: Server, images: Iterable[bytes]) -> Iterator[Answer]:
    """An answer for each image, PNG or JPEG bytes, in their order. Raises ServerError."""
    call = _grpc if server.grpc else _rest
    # One policy for both protocols. gRPC's own has one deadline for all tries, and never repeats more than 256 KiB.
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Passing),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential_jitter(initial=server.back_off_s, jitter=server.back_off_s),
        reraise=True,
    )
    for batch in batches(images):
        try:
            answers = retry(call, server, batch)
        except _Passing as error:
            raise ServerError(f"tried {TRIES} times: {error}") from error
        if len(answers) != len(batch):
            raise _unusable(server, f"{len(answers)} rows for {len(batch)} images")
        yield from answers


def batches(images: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Up to BATCH_IMAGES images of up to BATCH_BYTES together; a larger image goes alone."""
    batch: list[bytes] = []
    for image in images:
        if batch and (len(batch) == BATCH_IMAGES or sum(map(len, batch)) + len(image) > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def _rest(server: Server, images: list[bytes]) -> list[Answer]:
    """https://www.tensorflow.org/tfx/serving/api_rest, in its row format."""
    from http.client import BadStatusLine

    import requests

    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    body = json.dumps({"signature_name": SIGNATURE, "instances": instances}).encode()
    try:
        response = requests.post(
            f"http://{server.address}/v1/models/{quote(server.model, safe='')}:predict",
            # A file leaves in blocks that have connect_s each; bytes would have to leave within it as a whole.
            data=io.BytesIO(body),
            headers={"Content-Type": "application/json"},
            timeout=(server.connect_s, server.answer_s),
            allow_redirects=False,
        )
    except requests.ReadTimeout as error:
        raise _silent(server) from error
    except requests.RequestException as error:
        cause = _root(error)
        if isinstance(cause, BadStatusLine) and not isinstance(cause, ConnectionError):  # bytes came, but not HTTP
            raise _not_a_model_server(server, "it does not speak HTTP") from error
        raise _unreachable(server, str(cause)) from error

    status = f"{response.status_code} {response.reason}"
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        answer = None
    said = str(answer["error"]) if isinstance(answer, dict) and "error" in answer else None
    if response.status_code in (502, 503, 504):
        raise _unreachable(server, f"{status}: {said}" if said else status)
    if response.status_code == 413:
        raise _too_large(server, len(images), len(body))
    if said is not None:
        raise _refused(server, status, said, no_model=response.status_code == 404)
    if not response.ok or not isinstance(answer, dict) or "predictions" not in answer:
        kind = response.headers.get("Content-Type", "no content type")
        raise _not_a_model_server(server, f"it answered {status}, {kind}")
    try:
        # The decimals stand for float32 numbers: back to those, for the digits a SavedModel called in process gives.
        return [
            Answer(row["valid"], row["class"], array("f", row["probabilities"]).tolist())
            for row in answer["predictions"]
        ]
    except (KeyError, TypeError) as error:
        raise _unusable(server, repr(error)) from error


def _grpc(server: Server, images: list[bytes]) -> list[Answer]:
    """tensorflow_serving/apis/prediction_service.proto"""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = server.model
    request.model_spec.signature_name = SIGNATURE
    tensor = request.inputs["image_bytes"]
    tensor.dtype = tf.string.as_datatype_enum
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(images)
    options = [("grpc.min_reconnect_backoff_ms", int(server.connect_s * 1000))]  # gRPC's time-out to connect
    # A channel a try: one that failed to connect does not connect anew before a back-off of its own is over.
    with grpc.insecure_channel(server.address, options) as channel:
        try:
            response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(
                request, timeout=server.answer_s
            )
        except grpc.RpcError as error:
            code, said = error.code(), error.details() or ""
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _silent(server) from error
            if code == grpc.StatusCode.UNAVAILABLE:
                raise _unreachable(server, said) from error
            if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in said:
                raise _too_large(server, len(images), request.ByteSize()) from error
            if code == grpc.StatusCode.UNIMPLEMENTED:
                raise _not_a_model_server(server, f"it answered {code.name}: {said}") from error
            raise _refused(server, code.name, said, no_model=code == grpc.StatusCode.NOT_FOUND) from error
    outputs = dict(response.outputs)
    try:
        valid, names, probabilities = (
            tf.make_ndarray(outputs[name]).tolist() for name in ("valid", "class", "probabilities")
        )
        return [Answer(*row) for row in zip(valid, [name.decode() for name in names], probabilities, strict=True)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unusable(server, repr(error)) from error


def _root(error: BaseException) -> BaseException:
    """What the operating system said, below what the libraries made of it."""
    while below := error.__cause__ or error.__context__:
        error = below
    return error


def _where(server: Server) -> str:
    if server.grpc:
        return "HOST:PORT of its gRPC side (port 8500 by default)"
    return "HOST:PORT of its REST side (port 8501 by default), or add --grpc for its gRPC side (8500)"


def _short(said: str) -> str:
    return textwrap.shorten(said, 300, placeholder=" ...")  # one line; a server may repeat the request in its answer


def _silent(server: Server) -> ServerError:
    return _Passing(
        f"{server.address} did not answer within {server.answer_s:g} s: "
        "it may be overloaded or still be loading the model; its log tells"
    )


def _unreachable(server: Server, said: str) -> ServerError:
    return _Passing(f"no model server answers at {server.address} ({_short(said)}): start it, or give {_where(server)}")


def _not_a_model_server(server: Server, why: str) -> ServerError:
    return ServerError(f"{server.address} is not a model server ({_short(why)}): give {_where(server)}")


def _refused(server: Server, status: str, said: str, *, no_model: bool) -> ServerError:
    answered = f"{status}: {_short(said)}"
    if no_model:
        return ServerError(
            f"{server.address} serves no model {server.model!r} ({answered}): give the name it serves it by with --name"
        )
    if SIGNATURE in said and "not found" in said:
        return ServerError(
            f"model {server.model!r} at {server.address} has no signature {SIGNATURE} ({answered}): "
            "serve a model that `vitpipe run` pushed"
        )
    return ServerError(f"{server.address} refused the request ({answered}): the log of the server may say why")


def _too_large(server: Server, images: int, size: int) -> ServerError:
    return ServerError(
        f"{server.address} takes no message of {size:,} bytes, {images} image(s): "
        "send smaller images, or raise the limit of the server or of the proxy before it"
    )


def _unusable(server: Server, why: str) -> ServerError:
    return ServerError(
        f"model {server.model!r} at {server.address} does not answer as signature {SIGNATURE} does ({_short(why)}): "
        "serve a model that `vitpipe run` pushed"
    )
