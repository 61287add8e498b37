"""Process that holds a model for `vitpipe.ui.explainer_client`: `python -m vitpipe.ui.explainer DESCRIPTOR`.

A request consists of two messages: the folder of a pushed model, and an image. The answer is one message of JSON,
either `{"page": HTML}` or `{"refused": MESSAGE}`.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.ingest.images import BadImage, check
from components.errors import DataRefused, UsageError
from components.model.serving_folder import ModelRecord, read_record
from pipeline import pushed_models
from pipeline.console.logs import redirected

if TYPE_CHECKING:
    from pipeline.explainable_model import Model

_IDLE = 300.0  # seconds without a request after which the process ends


class Explainer:
    """Explainer of images that keeps the model of the newest request in memory."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._record: ModelRecord | None = None

    def page(self, folder: Path, image: bytes) -> str:
        """Return a page that explains an image.

        Args:
            folder: Folder of a pushed model.
            image: Content of a PNG or JPEG file.

        Raises:
            BadImage: If the image cannot be used.
            DataRefused: If the model was changed since its push.
            UsageError: If the model cannot be explained.
        """
        check(image)
        from pipeline.drawing.explain_images import (
            figures,
            page,
        )  # loads TensorFlow, which a file that is not an image does not need

        model = self._opened(folder)
        found = model.explain([image])
        if not found.valid.all():
            raise BadImage("does not decode")
        return page(model, figures(model, ["image"], found), found)

    def _opened(self, folder: Path) -> Model:
        try:
            record = read_record(folder)
        except ValueError as error:
            raise DataRefused(str(error)) from None
        # A pipeline whose run folder was removed may push another model to the same folder.
        if self._model is None or (self._model.path, self._record) != (folder, record):
            self._model = None  # memory may be too small for two models
            pushed_models.check(folder)
            from pipeline.explainable_model import open_model

            self._model, self._record = open_model(folder), record
        return self._model


def serve(connection: Connection) -> None:
    """Answer requests until none has come for some minutes."""
    explainer = Explainer()
    while connection.poll(_IDLE):
        folder, image = connection.recv_bytes().decode(), connection.recv_bytes()
        try:
            answer = {"page": explainer.page(Path(folder), image)}
        except BadImage as error:
            answer = {
                "refused": f"The image was refused ({error}). Choose a PNG or JPEG image of at most 4096x4096 pixels."
            }
        except (DataRefused, UsageError) as error:
            answer = {"refused": str(error)}
        connection.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    # The server may end at any time, which is not an error here.
    with redirected(Path(os.devnull)), suppress(EOFError, ConnectionError), Connection(int(sys.argv[1])) as requests:
        serve(requests)
