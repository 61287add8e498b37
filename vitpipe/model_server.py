"""Client of a model server that speaks TensorFlow Serving's REST or gRPC protocol.

The library of a protocol is imported when the protocol is used. REST works without TensorFlow; the message types of
gRPC import it.
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

SIGNATURE = "serving_bytes"  # defined in trainer/serving.py
BATCH_IMAGES = 32
BATCH_BYTES = 2 << 20  # 2.7 MiB in base64; the default limit of a gRPC server is 4 MiB a message
TRIES = 4


class _TransientError(ServerError):
    """The request failed, but may succeed if it is repeated."""


class Server(NamedTuple):
    """Address of a model on a server, and the time limits of a request.

    Attributes:
        address: HOST:PORT.
        model: the name of the model on the server.
        grpc: use gRPC instead of REST.
        connect_s: seconds within which a connection must be made.
        answer_s: seconds within which the server must answer.
        back_off_s: seconds to wait before the second try. The wait doubles with each further try, and a random time of
            up to `back_off_s` is added to it.
    """

    address: str
    model: str
    grpc: bool = False
    connect_s: float = 5
    answer_s: float = 30
    back_off_s: float = 0.5


class Answer(NamedTuple):
    """Answer of a model for one image.

    Attributes:
        valid: whether the image decodes.
        name: the name of the class; empty if the image is not valid.
        probabilities: the probability of each class, in index order.
    """

    valid: bool
    name: str
    probabilities: list[float]


def ask(server: Server, images: Iterable[bytes]) -> Iterator[Answer]:
    """Query a model server for the class of images. Requests that may succeed on a repetition are tried four times.

    Args:
        server: the model to query.
        images: the bytes of PNG or JPEG files.

    Yields:
        An answer for each image, in the order of `images`.

    Raises:
        ServerError: if the server does not answer, rejects the request, or gives an unexpected answer.
    """
    call = _call_grpc if server.grpc else _call_rest
    # Both protocols use this policy. gRPC's own retries share one deadline, and repeat no message over 256 KiB.
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_TransientError),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential_jitter(initial=server.back_off_s, jitter=server.back_off_s),
        reraise=True,
    )
    for batch in batches(images):
        try:
            answers = retry(call, server, batch)
        except _TransientError as error:
            raise ServerError(f"tried {TRIES} times: {error}") from error
        if len(answers) != len(batch):
            raise _unexpected_answer(server, f"{len(answers)} rows for {len(batch)} images")
        yield from answers


def batches(images: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield batches of at most `BATCH_IMAGES` images and `BATCH_BYTES` bytes. A larger image is a batch by itself."""
    batch: list[bytes] = []
    for image in images:
        if batch and (len(batch) == BATCH_IMAGES or sum(map(len, batch)) + len(image) > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def _call_rest(server: Server, images: list[bytes]) -> list[Answer]:
    """Query a server in the row format of https://www.tensorflow.org/tfx/serving/api_rest."""
    from http.client import BadStatusLine

    import requests

    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    body = json.dumps({"signature_name": SIGNATURE, "instances": instances}).encode()
    try:
        response = requests.post(
            f"http://{server.address}/v1/models/{quote(server.model, safe='')}:predict",
            # The time limit to connect also limits each send. A file is sent in blocks, bytes would be sent at once.
            data=io.BytesIO(body),
            headers={"Content-Type": "application/json"},
            timeout=(server.connect_s, server.answer_s),
            allow_redirects=False,
        )
    except requests.ReadTimeout as error:
        raise _timed_out(server) from error
    except requests.RequestException as error:
        cause = _root_cause(error)
        # A BadStatusLine that is not a ConnectionError means that bytes came, but not HTTP.
        if isinstance(cause, BadStatusLine) and not isinstance(cause, ConnectionError):
            raise _not_a_model_server(server, "it does not speak HTTP") from error
        raise _unreachable(server, str(cause)) from error

    status = f"{response.status_code} {response.reason}"
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        answer = None
    message = str(answer["error"]) if isinstance(answer, dict) and "error" in answer else None
    if response.status_code in (502, 503, 504):
        raise _unreachable(server, f"{status}: {message}" if message else status)
    if response.status_code == 413:
        raise _too_large(server, len(images), len(body))
    if message is not None:
        raise _rejected(server, status, message, no_model=response.status_code == 404)
    if not response.ok or not isinstance(answer, dict) or "predictions" not in answer:
        kind = response.headers.get("Content-Type", "no content type")
        raise _not_a_model_server(server, f"it answered {status}, {kind}")
    try:
        # The server writes float32 numbers as decimals. Converting them back gives the exact values of the model.
        return [
            Answer(row["valid"], row["class"], array("f", row["probabilities"]).tolist())
            for row in answer["predictions"]
        ]
    except (KeyError, TypeError) as error:
        raise _unexpected_answer(server, repr(error)) from error


def _call_grpc(server: Server, images: list[bytes]) -> list[Answer]:
    """Query a server by the protocol of tensorflow_serving/apis/prediction_service.proto."""
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
    options = [("grpc.min_reconnect_backoff_ms", int(server.connect_s * 1000))]  # gRPC's time limit to connect
    # Each try opens a new channel, because a channel that failed to connect first waits for a back-off of its own.
    with grpc.insecure_channel(server.address, options) as channel:
        try:
            response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(
                request, timeout=server.answer_s
            )
        except grpc.RpcError as error:
            code, message = error.code(), error.details() or ""
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _timed_out(server) from error
            if code == grpc.StatusCode.UNAVAILABLE:
                raise _unreachable(server, message) from error
            if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
                raise _too_large(server, len(images), request.ByteSize()) from error
            if code == grpc.StatusCode.UNIMPLEMENTED:
                raise _not_a_model_server(server, f"it answered {code.name}: {message}") from error
            raise _rejected(server, code.name, message, no_model=code == grpc.StatusCode.NOT_FOUND) from error
    outputs = dict(response.outputs)
    try:
        valid, names, probabilities = (
            tf.make_ndarray(outputs[name]).tolist() for name in ("valid", "class", "probabilities")
        )
        return [Answer(*row) for row in zip(valid, [name.decode() for name in names], probabilities, strict=True)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unexpected_answer(server, repr(error)) from error


def _root_cause(error: BaseException) -> BaseException:
    """Return the error of the operating system that the libraries have wrapped."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _address_hint(server: Server) -> str:
    if server.grpc:
        return "HOST:PORT of its gRPC port (8500 by default)"
    return "HOST:PORT of its REST port (8501 by default), or add --grpc for its gRPC port (8500)"


def _shorten(message: str) -> str:
    """Return a message in one line. A server may repeat the whole request in its message."""
    return textwrap.shorten(message, 300, placeholder=" ...")


def _timed_out(server: Server) -> ServerError:
    return _TransientError(
        f"{server.address} did not answer within {server.answer_s:g} s: "
        "it may be overloaded or still be loading the model; read its log"
    )


def _unreachable(server: Server, message: str) -> ServerError:
    return _TransientError(
        f"no model server answers at {server.address} ({_shorten(message)}): start it, or name {_address_hint(server)}"
    )


def _not_a_model_server(server: Server, reason: str) -> ServerError:
    return ServerError(f"{server.address} is not a model server ({_shorten(reason)}): name {_address_hint(server)}")


def _rejected(server: Server, status: str, message: str, *, no_model: bool) -> ServerError:
    answer = f"{status}: {_shorten(message)}"
    if no_model:
        return ServerError(
            f"{server.address} serves no model {server.model!r} ({answer}): name the model of the server with --name"
        )
    if SIGNATURE in message and "not found" in message:
        return ServerError(
            f"model {server.model!r} at {server.address} has no signature {SIGNATURE} ({answer}): "
            "serve a model that `vitpipe run` pushed"
        )
    return ServerError(f"{server.address} rejected the request ({answer}): the log of the server may say why")


def _too_large(server: Server, images: int, size: int) -> ServerError:
    return ServerError(
        f"{server.address} rejects the message of {size:,} bytes with {images} image(s) as too large: "
        "send smaller images, or raise the limit of the server or of the proxy before it"
    )


def _unexpected_answer(server: Server, reason: str) -> ServerError:
    return ServerError(
        f"the answer of model {server.model!r} at {server.address} is not that of signature {SIGNATURE} "
        f"({_shorten(reason)}): serve a model that `vitpipe run` pushed"
    )
