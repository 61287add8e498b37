"""The watcher's choice of spans to train on, with real spans, a real store, and runs that are only recorded."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import pytest

from components.data.ingest import manifest, tfrecord
from components.errors import DataRefused, Exit, SettingsError, StoreError, UsageError
from pipeline.metadata.address import Address
from pipeline.metadata.standalone_record import MONITOR, StandaloneRecorder
from pipeline.settings import Settings
from tests.helpers.kill import kill_a_writer
from tests.helpers.model_records import record
from tests.helpers.spans import encoded, picture, write_span
from tests.helpers.stores import put_run
from vitpipe.watcher import Pace, Watcher, check, run_child

FAST = Pace(every=0.01, settle=0.05, retry=0.01, longest_retry=0.04, attempts=4)


class StopWatching(Exception):
    """Ends a watcher, which otherwise never ends."""


@dataclass
class Pipeline:
    """A pipeline whose runs end with the exit codes in `ends`, and then with 0. They are recorded like real runs."""

    settings: Settings
    ends: list[int] = field(default_factory=list)
    trained: list[tuple[int, str]] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    on_drift: bool = False
    until: str = "waiting for another span"  # the message that ends the test
    times: int = 1

    def add_span(self, span):
        """Add a span with new images to the data folder, by one rename."""
        image = encoded(picture(span))
        records = {
            split: [tfrecord.example(image, label, b"%d" % label) for label in range(3)] for split in ("train", "val")
        }
        data = self.settings.data.dir
        write_span(data / ".tmp", span, {**records, "test": records["val"]}).rename(data / f"span-{span}")

    def record_run(self, span, end, **facts):
        """Record a run on a span. With `end` None, the run has not recorded its end."""
        folder = self.settings.data.dir / f"span-{span}"
        facts = {
            "settings": self.settings.resolved(span),
            "data_digest": manifest.read(folder).digest(),
            "trigger": "span",
            **facts,
        }
        if end is not None:
            facts["exit"] = str(int(end))
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        put_run(self.settings.folder / "metadata.db", self.settings.name, f"run-{time.monotonic_ns()}", facts)

    def train(self, span, trigger, reason):
        self.trained.append((span, reason))
        self.triggers.append(trigger)
        end = self.ends.pop(0) if self.ends else Exit.OK
        self.record_run(span, end, trigger=trigger)
        return end

    def say(self, line):
        self.messages.append(line)
        if self.until in line:
            self.times -= 1
            if not self.times:
                raise StopWatching

    def watch(self, pace=FAST):
        with pytest.raises(StopWatching):
            Watcher(self.settings, self.train, self.say, pace, self.on_drift).forever()

    def once(self):
        return Watcher(self.settings, self.train, self.say, FAST, self.on_drift).once()

    @property
    def spans(self):
        return [span for span, _ in self.trained]


@pytest.fixture
def pipeline(tmp_path):
    (tmp_path / "data").mkdir()
    return Pipeline(Settings(name="cats", runs=tmp_path / "runs", data={"dir": tmp_path / "data"}))


def test_a_span_is_trained_on_once(pipeline):
    assert pipeline.once() == 0 and pipeline.spans == []
    assert "no span in" in pipeline.messages[-1]
    pipeline.add_span(1)
    assert pipeline.once() == 0
    assert pipeline.trained == [(1, "span 1 appeared; no span was trained on before")]
    assert pipeline.once() == 0 and pipeline.spans == [1]
    assert "nothing to do: run run-" in pipeline.messages[-1] and pipeline.messages[-1].endswith(
        "on span 1 ended: done"
    )
    pipeline.add_span(2)
    pipeline.add_span(3)
    assert pipeline.once() == 0
    assert pipeline.trained[1:] == [(3, "span 3 appeared; the last training was on span 1")]


DARK = '{"1": "drift_colour: it is dark"}'


def record_monitoring(pipeline, version_alerts):
    """Record a report of the monitor, with the first alert of each version as JSON."""
    address = Address(file=pipeline.settings.folder / "metadata.db")
    recorder = StandaloneRecorder(address, "cats", pipeline.settings.folder / "root", MONITOR)
    with recorder.recorded([]) as output:
        output.properties["version_alerts"] = version_alerts


def push(pipeline, version):
    folder = pipeline.settings.folder / "serving" / str(version)
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(record(version).model_dump_json())


def test_on_drift_a_new_span_waits_for_an_alert(pipeline):
    pipeline.on_drift = True
    pipeline.add_span(1)
    pipeline.once()
    assert (pipeline.spans, pipeline.triggers) == ([1], ["span"])  # the first model needs no alert
    push(pipeline, 1)
    pipeline.add_span(2)
    pipeline.once()
    record_monitoring(pipeline, "{}")
    record_monitoring(pipeline, '{"2": "it is red"}')
    pipeline.once()
    assert pipeline.spans == [1] and "waits for an alert" in pipeline.messages[-1]
    record_monitoring(pipeline, DARK)
    pipeline.once()
    assert (pipeline.spans, pipeline.triggers) == ([1, 2], ["span", "drift"])
    assert pipeline.trained[-1][1].startswith("drift_colour: it is dark (artifact ")
    push(pipeline, 3)  # the alert was about another version
    pipeline.add_span(3)
    pipeline.once()
    assert pipeline.spans == [1, 2]


def test_on_drift_an_alert_about_another_version_starts_no_training(pipeline):
    pipeline.on_drift = True
    push(pipeline, 1)
    push(pipeline, 2)
    pipeline.add_span(1)
    for alerts in '{"1": "it is dark"}', "{}", '["2"]', "no JSON":
        record_monitoring(pipeline, alerts)
        pipeline.once()
    assert pipeline.spans == [] and "waits for an alert" in pipeline.messages[-1]
    record_monitoring(pipeline, '{"1": "it is dark", "2": "it is red"}')
    pipeline.once()
    assert pipeline.triggers == ["drift"] and pipeline.trained[-1][1].startswith("it is red (artifact ")


def test_on_drift_an_alert_starts_a_training_on_the_span_that_waits(pipeline):
    pipeline.on_drift = True
    pipeline.add_span(1)
    pipeline.record_run(1, Exit.OK)
    push(pipeline, 1)
    pipeline.add_span(2)
    say, pipeline.until, pipeline.times = pipeline.say, "nothing to do: run run-", 1

    def say_and_drift(line):
        if "waiting for another span" in line and not pipeline.trained:
            record_monitoring(pipeline, DARK)
        if pipeline.trained and "waiting for another span" in line:
            record_monitoring(pipeline, DARK)  # another alert, but the span is done
        say(line)

    pipeline.say = say_and_drift
    pipeline.watch()
    assert (pipeline.spans, pipeline.triggers) == ([2], ["drift"])


@pytest.mark.parametrize("verdict", [Exit.DATA_REFUSED, Exit.NOT_BLESSED, Exit.NOT_SERVABLE])
def test_once_returns_the_exit_code_and_a_verdict_is_final(pipeline, verdict):
    pipeline.add_span(1)
    pipeline.ends = [verdict]
    assert pipeline.once() == verdict
    assert pipeline.once() == 0
    assert pipeline.spans == [1]


def test_a_refused_span_is_not_reported_as_trained_on(pipeline):
    pipeline.add_span(1)
    pipeline.add_span(2)
    pipeline.record_run(1, Exit.NOT_BLESSED)
    pipeline.record_run(2, Exit.DATA_REFUSED)
    pipeline.add_span(3)
    pipeline.once()
    assert pipeline.trained == [(3, "span 3 appeared; the last training was on span 1")]


def test_a_crashed_or_killed_run_does_not_count(pipeline):
    pipeline.add_span(1)
    pipeline.record_run(1, Exit.CRASHED)
    gone = subprocess.run(
        [sys.executable, "-c", "from pipeline.result.run_result import this_process; print(this_process())"],
        capture_output=True,
        text=True,
        check=True,
    )
    pipeline.record_run(1, None, process=gone.stdout.strip())
    pipeline.once()
    assert pipeline.spans == [1]


def test_runs_of_other_pipelines_or_other_data_do_not_count(pipeline):
    pipeline.add_span(1)
    pipeline.record_run(1, Exit.OK, data_digest="0" * 64)
    file = pipeline.settings.folder / "metadata.db"
    digest = manifest.read(pipeline.settings.data.dir / "span-1").digest()
    other = {"settings": json.dumps({"name": "dogs", "data": {"span": 1}}), "data_digest": digest, "exit": "0"}
    put_run(file, "dogs", "run-of-dogs", other)
    pipeline.once()
    assert pipeline.spans == [1]


def test_spans_that_appear_together_start_one_run(pipeline):
    pipeline.add_span(1)

    def add_span():
        while not any("waiting for another span" in line for line in pipeline.messages):
            time.sleep(0.01)
        for span in 2, 3, 4:
            pipeline.add_span(span)
            time.sleep(0.1)

    thread = threading.Thread(target=add_span)
    thread.start()
    pipeline.times = 2
    pipeline.watch(Pace(every=0.01, settle=1.0))
    thread.join()
    assert pipeline.spans == [1, 4]
    assert pipeline.trained[1][1] == "span 4 appeared; the last training was on span 1"


def test_a_failing_run_is_retried_a_limited_number_of_times(pipeline):
    pipeline.add_span(1)
    pipeline.ends = [1, 1, 2, 1, 1]
    pipeline.watch()
    assert pipeline.spans == [1] * FAST.attempts
    assert any("given up after 4 attempts" in line for line in pipeline.messages)


def test_waits_double_up_to_the_maximum(pipeline):
    pipeline.add_span(1)
    pipeline.ends = [1] * 4
    pipeline.watch(Pace(every=0.1, retry=0.2, longest_retry=0.5, attempts=4))
    assert [line.rpartition(" in ")[2] for line in pipeline.messages if "failed" in line] == ["0.2 s", "0.4 s", "0.5 s"]


def test_a_new_span_ends_the_wait_after_a_failure(pipeline):
    pipeline.add_span(1)
    pipeline.ends = [1]

    def add_span():
        while not any("failed" in line for line in pipeline.messages):
            time.sleep(0.01)
        pipeline.add_span(2)

    thread = threading.Thread(target=add_span)
    thread.start()
    began = time.monotonic()
    pipeline.watch(Pace(every=0.01, settle=0.01, retry=300))
    thread.join()
    assert pipeline.spans == [1, 2] and time.monotonic() - began < 100


def test_another_run_is_waited_for_and_its_verdict_counts(pipeline):
    pipeline.add_span(1)
    pipeline.settings.folder.mkdir(parents=True)
    lock = filelock.FileLock(pipeline.settings.folder / ".lock", thread_local=False)
    lock.acquire()
    assert pipeline.once() == 0 and "another run of cats is running" in pipeline.messages[-1]

    def other():
        while not any("waits for another run of cats" in line for line in pipeline.messages):
            time.sleep(0.01)
        pipeline.record_run(1, Exit.OK)
        lock.release()

    thread = threading.Thread(target=other)
    thread.start()
    pipeline.watch()
    thread.join()
    assert pipeline.spans == []


def test_a_run_on_a_cluster_is_waited_for(pipeline):
    pipeline.add_span(1)
    pipeline.record_run(1, None, process=json.dumps({"kubeflow": "run-on-cluster"}))
    assert pipeline.once() == 0 and pipeline.spans == []
    assert "another run of cats is running" in pipeline.messages[-1]


def test_reading_a_damaged_store_is_retried(pipeline):
    pipeline.add_span(1)
    pipeline.settings.folder.mkdir(parents=True)
    file = pipeline.settings.folder / "metadata.db"
    file.write_text("no database at all, and longer than a header of one would be" * 20)
    with pytest.raises(StoreError):
        pipeline.once()

    def mend():
        while not any("failed" in line for line in pipeline.messages):
            time.sleep(0.01)
        file.unlink()

    thread = threading.Thread(target=mend)
    thread.start()
    pipeline.watch(Pace(every=0.01, retry=0.3, attempts=4))
    thread.join()
    assert pipeline.spans == [1]


def test_a_store_whose_writer_was_killed_is_read_and_training_continues(pipeline):
    pipeline.add_span(1)
    pipeline.record_run(1, Exit.OK, **{f"fact {number}": "x" * 500 for number in range(100)})  # more than a page
    store = pipeline.settings.folder / "metadata.db"
    kill_a_writer(store)
    journal = Path(f"{store}-journal")
    assert journal.stat().st_size > 0 and b"half" in store.read_bytes()
    assert pipeline.once() == 0 and pipeline.spans == []
    assert pipeline.messages[-1].endswith("on span 1 ended: done") and not journal.exists()
    kill_a_writer(store)
    pipeline.add_span(2)
    assert pipeline.once() == 0 and pipeline.spans == [2]


def test_a_run_folder_of_another_store_is_an_error_without_retries(pipeline):
    pipeline.add_span(1)
    (pipeline.settings.folder / "root").mkdir(parents=True)
    for look in pipeline.once, Watcher(pipeline.settings, pipeline.train, pipeline.say, FAST).forever:
        with pytest.raises(SettingsError, match="another store of ML Metadata"):
            look()
    assert pipeline.spans == []


def test_a_span_without_a_manifest_is_refused(pipeline):
    (pipeline.settings.data.dir / "span-1").mkdir()
    with pytest.raises(DataRefused, match=r"manifest.json: missing"):
        pipeline.once()
    pipeline.watch()
    assert pipeline.spans == [] and any("given up" in line for line in pipeline.messages)


def test_check_rejects_a_fixed_span_and_a_missing_folder(pipeline):
    check(pipeline.settings)
    data = pipeline.settings.data
    with pytest.raises(SettingsError, match=r"data\.span is 3"):
        check(pipeline.settings.model_copy(update={"data": data.model_copy(update={"span": 3})}))
    with pytest.raises(UsageError, match="does not exist"):
        check(pipeline.settings.model_copy(update={"data": data.model_copy(update={"dir": data.dir / "not"})}))


def python(*lines):
    return [sys.executable, "-c", "\n".join(lines)]


def test_run_child_returns_the_exit_code():
    messages = []
    assert run_child(python("raise SystemExit(4)"), messages.append) == Exit.NOT_BLESSED
    assert run_child(python("raise SystemExit(143)"), messages.append) == Exit.CRASHED
    assert messages == []
    assert run_child(python("import os; os.kill(os.getpid(), 9)"), messages.append) == Exit.CRASHED
    assert messages == ["the run was ended by SIGKILL"]


def test_an_interrupt_ends_the_child(tmp_path):
    child = python(
        "import pathlib, signal, sys, time",
        "def end(*_):",
        "    time.sleep(0.2)",
        f"    pathlib.Path({str(tmp_path / 'ended')!r}).touch()",
        "    sys.exit(143)",
        "signal.signal(signal.SIGTERM, end)",
        "print('here', flush=True)",
        "time.sleep(60)",
    )
    parent = subprocess.Popen(
        python(
            "import signal",
            "from vitpipe.watcher import run_child",
            "signal.signal(signal.SIGINT, signal.default_int_handler)",
            f"run_child({child!r}, print)",
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout.readline() == "here\n"  # the output of the child is that of the parent
    parent.send_signal(signal.SIGINT)
    _, stderr = parent.communicate(timeout=30)
    assert "KeyboardInterrupt" in stderr and (tmp_path / "ended").exists()
