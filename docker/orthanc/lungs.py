"""Orthanc's Python plugin: a CT series that is stable gets its report and its segmentation.

The log knows series by their identifiers in Orthanc, which are digests.
"""

import json
import os
import queue
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

import orthanc

URL = os.environ.get("SERVICE_URL", "http://service:8000")
KEY_FILE = os.environ.get("SERVICE_KEY_FILE")
FORMS = ("dicom-sr", "dicom-seg")  # whoever finds the segmentation may rely on the report
LEAST_IMAGES = 10
TIMEOUT_S = 900
PAUSES_S = (15, 30, 60, 120)
PASSING = (429, 500, 502, 503, 504)
waiting: queue.Queue[str] = queue.Queue()


def changed(change: int, _level: int, resource: str) -> None:
    """Orthanc waits for this, so that the work is done elsewhere."""
    if change == orthanc.ChangeType.STABLE_SERIES:
        waiting.put(resource)


def work() -> None:
    while True:
        series = waiting.get()
        try:
            segment(series)
        except Exception as error:  # noqa: BLE001 - the next series shall have its turn
            code = getattr(error, "code", type(error).__name__)
            orthanc.LogError(f"lungseg: series {series}: failed, {code}")


def segment(series: str) -> None:
    found = json.loads(orthanc.RestApiGet(f"/series/{series}"))
    # What is stored here becomes stable too, and is no CT: this ends there.
    count = len(found["Instances"])
    if found["MainDicomTags"].get("Modality") != "CT" or 1 < count < LEAST_IMAGES:
        return
    archive = orthanc.RestApiGet(f"/series/{series}/archive")
    for form in FORMS:
        orthanc.RestApiPost("/instances", answer(archive, form))
    orthanc.LogWarning(f"lungseg: series {series}: stored, of {count} instances")


def answer(archive: bytes, form: str) -> bytes:
    key = {"X-API-Key": Path(KEY_FILE).read_text().strip()} if KEY_FILE else {}
    headers = {"Content-Type": "application/zip", **key}
    request = Request(f"{URL}/segment/volume?format={form}", archive, headers)  # noqa: S310
    for pause_s in (*PAUSES_S, None):
        try:
            with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                return response.read()
        except OSError as error:
            if pause_s is None or getattr(error, "code", PASSING[0]) not in PASSING:
                raise
        time.sleep(pause_s)
    raise AssertionError


orthanc.RegisterOnChangeCallback(changed)
threading.Thread(target=work, daemon=True).start()
