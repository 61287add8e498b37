"""TFX's Pusher with a push that a model server sees whole or not at all."""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tfx.components import Pusher as TfxPusher
from tfx.components.pusher import executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.utils import proto_utils

from components.disk import sync, sync_tree
from components.gate import Judgement
from components.serving_folder import RECORD, ModelRecord, serving_now, versions


class Executor(executor.Executor):
    """Copies beside the target, then renames: TFX's own copies in place, and a crash leaves half a model serving.

    The model that already serves is not pushed again. `pushed_model` then names the serving version and says
    `pushed` 0.
    """

    def Do(self, input_dict, output_dict, exec_properties):
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        folder = Path(destination.filesystem.base_directory)
        model = artifact_utils.get_single_instance(input_dict["model"])
        serving = serving_now(folder)
        if serving is not None and serving.names(model):
            version = serving.version
            self._MarkNotPushed(pushed_model)
        else:
            blessing = artifact_utils.get_single_instance(input_dict["model_blessing"])
            judgement = Judgement.model_validate_json(blessing.get_string_custom_property("judgement"))
            version = max(versions(folder), default=0) + 1
            record = ModelRecord(
                version=version,
                pushed_at=datetime.now(UTC),
                run_id=self._context.pipeline_run_id,
                model_id=model.id,
                model_uri=model.uri,
                model_created_ms=model.mlmd_artifact.create_time_since_epoch,
                accuracy=judgement.candidate.accuracy,
                classes=list(judgement.candidate.class_accuracy),
            )
            push(Path(self.GetModelPath(input_dict)), folder / str(version), record)
            pushed_model.set_int_custom_property("pushed", 1)
        pushed_model.set_string_custom_property("pushed_version", str(version))
        pushed_model.set_string_custom_property("pushed_destination", str(folder / str(version)))


class Pusher(TfxPusher):
    """See `Executor`."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)


def push(model: Path, target: Path, record: ModelRecord) -> None:
    """Copy the SavedModel folder `model` to `target` with its record, so that `target` appears complete.

    Raises OSError when `target` is there already or the disk is full; `target` is then as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(".tmp-*"):  # of a push that was killed: one run at a time
        shutil.rmtree(leftover)
    # Beside the target, because a rename is atomic within one file system only; a model server reads numbers alone.
    temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{target.name}-", dir=target.parent))
    try:
        shutil.copytree(model, temporary, dirs_exist_ok=True)
        (temporary / RECORD).write_text(record.model_dump_json(indent=2) + "\n")
        temporary.chmod(0o755)  # mkdtemp's 0700 would shut out a model server that runs as somebody else
        sync_tree(temporary)
        temporary.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
