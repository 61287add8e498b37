"""Model server for tests: TensorFlow Serving's REST and gRPC protocols over real sockets, with a SavedModel behind.

Statuses, messages and the format of floats are those of TensorFlow Serving (http_rest_api_handler.cc, json_tensor.cc,
predict_util.cc).
"""

import base64
import contextlib
import json
import re
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Served:
    """A model with its name, and the failures of its server."""

    def __init__(self, signatures, name="vit"):
        self.signatures, self.name = signatures, name
        self.failures = []  # statuses of the next answers, as numbers of HTTP or codes of gRPC
        self.delay_s = 0.0
        self.batches = []  # number of images of each request, answered or not

    def predict(self, signature, images):
        return {
            key: value.numpy() for key, value in self.signatures[signature](image_bytes=tf.constant(images)).items()
        }


@contextlib.contextmanager
def rest(served, port=0, host="127.0.0.1"):
    """Start a server of `served` with the REST protocol. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # the probes of Kubernetes
            if self.path in (f"/v1/models/{served.name}", f"/v1/models/{served.name}/metadata"):
                self.answer(200, json.dumps({"model_spec": {"name": served.name}}))
            else:
                self.answer(404, json.dumps({"error": f"Malformed request: GET {self.path}"}))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.batches.append(len(body["instances"]))
            time.sleep(served.delay_s)
            path = re.fullmatch(r"/v1/models/([^/:]+):predict", self.path)
            if served.failures:
                self.answer(served.failures.pop(0), "<html>busy</html>", "text/html")
            elif not path:
                self.answer(400, json.dumps({"error": f"Malformed request: POST {self.path}"}))
            elif path[1] != served.name:
                self.answer(404, json.dumps({"error": f"Servable not found for request: Latest({path[1]})"}))
            elif (signature := body["signature_name"]) not in served.signatures:
                text = f'Serving signature name: "{signature}" not found in signature def'
                self.answer(400, json.dumps({"error": text}))
            else:
                columns = served.predict(signature, [base64.b64decode(row["b64"]) for row in body["instances"]])
                rows = [
                    dict(zip(columns, map(_format, row), strict=True)) for row in zip(*columns.values(), strict=True)
                ]
                objects = ("{" + ", ".join(f'"{key}": {value}' for key, value in row.items()) + "}" for row in rows)
                self.answer(200, '{\n"predictions": [' + ", ".join(objects) + "\n]}")

        def answer(self, status, text, kind="application/json"):
            with contextlib.suppress(ConnectionError):  # a client that waited long enough
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer((host, port), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"{host}:{server.server_port}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def over_grpc(served, port=0):
    """Start a server of `served` with the gRPC protocol. Yields its address."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            images = tf.make_ndarray(request.inputs["image_bytes"]).tolist()
            served.batches.append(len(images))
            time.sleep(served.delay_s)
            name, signature = request.model_spec.name, request.model_spec.signature_name
            if served.failures:
                context.abort(served.failures.pop(0), "busy")
            if name != served.name:
                context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name})")
            if signature not in served.signatures:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
            response = predict_pb2.PredictResponse()
            for key, value in served.predict(signature, images).items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _format(value):
    """Format a value like TensorFlow Serving, which writes six digits if they give the same float32, else nine."""
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(map(_format, value)) + "]"
    if isinstance(value, bytes):
        return json.dumps(value.decode())
    if isinstance(value, np.float32):
        short = f"{value:.6g}"
        digits = short if np.float32(short) == value else f"{value:.9g}"
        return digits if "." in digits or "e" in digits else digits + ".0"
    return json.dumps(value.item())
