"""Signs what standard input has, and prints the signatures and tokens."""
import base64
import json
import sys

sys.path.insert(0, ".")
import pushy_api  # noqa: E402

given = json.load(sys.stdin)
print(json.dumps({
    "Requests": [
        pushy_api.Pushy("", v["Secret"]).signature(int(v["Time"]), v["ID"], v["Path"], base64.b64decode(v["BodyBase64"]))
        for v in given["Requests"]
    ],
    "Tokens": [pushy_api.Pushy("", v["Secret"]).token(v["Claims"]) for v in given["Tokens"]],
}))
