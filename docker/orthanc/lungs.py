"""Orthanc's Python plugin: a CT series that is stable gets its report and its segmentation."""

import json
import os
import queue
import threading
from pathlib import Path
from urllib.request import Request, urlopen

import orthanc

URL = os.environ.get("SERVICE_URL", "http://service:8000")
KEY_FILE = os.environ.get("SERVICE_KEY_FILE")
TIMEOUT_S = 900
waiting: queue.Queue[str] = queue.Queue()


def changed(change: int, _level: int, resource: str) -> None:
    """Orthanc waits for this, so that the work is done elsewhere."""
    if change == orthanc.ChangeType.STABLE_SERIES:
        waiting.put(resource)


def work() -> None:
    while series := waiting.get():
        try:
            segment(series)
        except Exception as error:  # noqa: BLE001 - the next series shall have its turn
            code = getattr(error, "code", type(error).__name__)
            orthanc.LogError(f"lungseg: series {series}: failed, {code}")


def segment(series: str) -> None:
    found = json.loads(orthanc.RestApiGet(f"/series/{series}"))
    if found["MainDicomTags"].get("Modality") != "CT":
        return  # the results stored here become stable too, and do not begin it again
    archive = orthanc.RestApiGet(f"/series/{series}/archive")
    key = {"X-API-Key": Path(KEY_FILE).read_text().strip()} if KEY_FILE else {}
    for form in ("dicom-sr", "dicom-seg"):  # whoever finds the last may rely on the first
        url = f"{URL}/segment/volume?format={form}"
        request = Request(url, archive, {"Content-Type": "application/zip", **key})  # noqa: S310
        with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            orthanc.RestApiPost("/instances", response.read())


orthanc.RegisterOnChangeCallback(changed)
threading.Thread(target=work, daemon=True).start()
