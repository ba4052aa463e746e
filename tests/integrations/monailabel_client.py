"""What 3D Slicer does with a volume, by MONAI Label's own client, under a Python that has it.

monailabel_client.py URL FILE FOLDER KEY: prints what it heard as JSON.
"""

import json
import sys

from monailabel.client import MONAILabelClient

url, file, folder, key = sys.argv[1:]
client = MONAILabelClient(url, folder, client_id="user-xyz")
assert client.auth_enabled()
client.update_auth(client.auth_token("user-xyz", key))
assert client.auth_valid_token()
heard = {"models": client.info()["models"]}
session = client.create_session(file)["session_id"]
client.get_session(session)
asked = {"result_extension": ".nrrd", "result_dtype": "uint8"}
heard["in session"] = client.infer("standin", file, dict(asked), session_id=session)
heard["with file"] = client.infer("standin", file, {}, file=file)
client.remove_session(session)
print(json.dumps(heard))
