#!/usr/bin/env python3
"""Calls the signed API of pushy, with Python's standard library only.

    export PUSHY_SECRET_KEY=…  PUSHY_URL=https://rt.example.com/pushy
    publish.py one CHANNEL EVENT [JSON]      publishes an event
    publish.py many JSON                     publishes an array of events

With PUSHY_ID, a request that was carried out under that id is not carried out again. The answer
is printed as JSON. PROTOCOL.md, section 15, describes the API.
"""
import email.utils
import hashlib
import hmac
import json
import os
import random
import re
import secrets
import sys
import time
import urllib.error
import urllib.request

TRIES = 6


class Refused(Exception):
    """An answer other than success. Its text has no secret."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None  # the request would become a GET


class Pushy:
    def __init__(self, url, secret):
        self.url, self.secret = url.rstrip("/"), secret.encode()
        self.key_id = self.hmac(b"pushy2-key-id")[:8]
        self.opener = urllib.request.build_opener(NoRedirect)

    def hmac(self, text):
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()

    def signature(self, stamp, request_id, path, body):
        head = f"pushy2-request\n{self.key_id}\n{stamp}\n{request_id}\n{path}\n"
        return f"v2 {self.key_id} {stamp} {request_id} " + self.hmac(head.encode() + body)

    def call(self, name, value, request_id=None):
        """Sends a request until it succeeds or finally fails. All tries have the same id."""
        path, body = "/api/" + name, json.dumps(value).encode()
        request_id = request_id or secrets.token_hex(16)
        for attempt in range(1, TRIES + 1):
            request = urllib.request.Request(self.url + path, body, {
                "Content-Type": "application/json",
                "Pushy-Signature": self.signature(int(time.time()), request_id, path, body),
            })
            wait = 0
            try:
                with self.opener.open(request, timeout=15) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                text = error.read().decode("utf-8", "replace")
                failure = Refused(f"status {error.code}: {text[:400]}")
                if error.code not in (408, 425, 429) and (error.code < 500 or error.code in (501, 505)):
                    raise failure from None
                wait = retry_after(error.headers.get("Retry-After", ""))
            except (OSError, ValueError) as error:  # no answer, or not all of it
                failure = Refused(f"no answer: {error}")
            if attempt == TRIES:
                raise failure
            time.sleep(max(wait, random.uniform(0, min(5, 0.1 * 2**attempt))))

    def publish(self, channel, event, data, request_id=None):
        return self.publish_all([{"channels": [channel], "event": event, "data": data}], request_id)

    def publish_all(self, events, request_id=None):
        return self.call("publish", {"events": events}, request_id)


def retry_after(header):
    if re.fullmatch("[0-9]{1,6}", header):
        return int(header)
    try:
        return max(0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0


def main(args):
    pushy = Pushy(os.environ.get("PUSHY_URL", "http://127.0.0.1:8123/pushy"), os.environ["PUSHY_SECRET_KEY"])
    request_id = os.environ.get("PUSHY_ID")
    if args[:1] == ["one"] and 3 <= len(args) <= 4:
        return pushy.publish(args[1], args[2], json.loads(args[3] if len(args) > 3 else "{}"), request_id)
    if args[:1] == ["many"] and len(args) == 2:
        return pushy.publish_all(json.loads(args[1]), request_id)
    sys.exit(__doc__)


if __name__ == "__main__":
    try:
        print(json.dumps(main(sys.argv[1:])))
    except (Refused, ValueError) as error:
        sys.exit(f"publish.py: {error}")
