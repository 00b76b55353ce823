#!/usr/bin/env python3
"""Calls the signed API of pushy, with nothing but Python 3.9 or newer.

    export PUSHY_SECRET_KEY=…  PUSHY_URL=https://rt.example.com/pushy
    pushy_api.py publish CHANNEL EVENT [JSON]   publishes an event
    pushy_api.py publish-all <FILE              publishes the events of a JSON array
    pushy_api.py kick TARGET [REASON]           TARGET is user:ID, conn:ID or channel:NAME
    pushy_api.py list CALL [JSON]               all pages of channels, members, connections or bans
    pushy_api.py call CALL [JSON]               any other call

With PUSHY_ID, a request that was carried out under that id is not carried out again. The answer
is printed as JSON. PROTOCOL.md, section 15, describes the calls. In a program:

    pushy = pushy_api.Pushy("https://rt.example.com/pushy", os.environ["PUSHY_SECRET_KEY"])
    pushy.publish("lobby", "news", {"text": "Hello"})
"""
import base64
import email.utils
import hashlib
import hmac
import http.client
import json
import os
import random
import secrets
import sys
import time
import urllib.error
import urllib.request

TRIES = 6


class PushyError(Exception):
    """A request that the server has refused, or that it has not answered.

    status is 0 if there was no answer: it is not known whether the request was carried out.
    """

    def __init__(self, message, status=0, answer=None):
        super().__init__(message)
        self.status, self.answer = status, answer


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None  # otherwise the request would become a GET


class Pushy:
    def __init__(self, url, secret):
        self.url, self.secret = url.rstrip("/"), secret.encode()
        self.key_id = self.hmac(b"pushy2-key-id")[:8]
        self.opener = urllib.request.build_opener(NoRedirect)

    def publish(self, channel, event, data, request_id=None):
        """Publishes an event. With the same request_id, it is published once, however often this is called."""
        return self.publish_all([{"channels": [channel], "event": event, "data": data}], request_id)

    def publish_all(self, events, request_id=None):
        """Publishes at most 100 events."""
        return self.call("publish", {"events": events}, request_id)

    def kick(self, target, reason=None, until=None, request_id=None):
        """Closes the connections of "user:42", or ends the subscriptions of "channel:lobby"; until makes it a ban."""
        given = {"target": target, "reason": reason, "until": until}
        return self.call("kick", {k: v for k, v in given.items() if v is not None}, request_id)

    def list(self, name, query=None):
        """All pages of "channels", "members", "connections" or "bans". What only the silent nodes have is missing."""
        query, items, silent = {"limit": 1000, **(query or {})}, [], set()
        while True:
            page = self.call(name, query)
            items += page[name]
            silent.update(page.get("silent", []))
            if not page.get("next"):
                return {name: items, "silent": sorted(silent)}
            query["after"] = page["next"]

    def call(self, name, value, request_id=None):
        """Sends a request until it succeeds or finally fails. All tries have the same id."""
        body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        request_id = request_id or secrets.token_hex(16)
        for attempt in range(1, TRIES + 1):
            status, wait, text = self.post("/api/" + name, request_id, body)
            try:
                answer = json.loads(text)
            except ValueError:
                answer = None
            if status == 200 and isinstance(answer, dict):
                return answer
            error = answer.get("error") if isinstance(answer, dict) else None
            error = error if isinstance(error, dict) else {}
            again = (
                status < 300  # no answer, or not all of it
                or status in (408, 425, 429)
                or (status >= 500 and status not in (501, 505))
                or (status == 403 and error.get("code") == "501")  # signed before the server was started
            )
            if not again or attempt == TRIES or wait > 60:
                message = error.get("message") or text[:400]
                raise PushyError(f"status {status}: {message}" if status else message, status, answer)
            time.sleep(max(wait, random.uniform(0, min(5, 0.1 * 2**attempt))))

    def post(self, path, request_id, body):
        """Returns the status, or 0; the seconds of Retry-After; and the body."""
        request = urllib.request.Request(self.url + path, body, {
            "Content-Type": "application/json",
            "Pushy-Signature": self.signature(int(time.time()), request_id, path, body),
        })
        try:
            try:
                response = self.opener.open(request, timeout=15)
            except urllib.error.HTTPError as error:
                response = error
            with response:
                text = response.read().decode("utf-8", "replace")
                return response.status, retry_after(response.headers.get("Retry-After", "")), text
        except (OSError, http.client.HTTPException) as error:
            return 0, 0, f"no answer: {error}"

    def signature(self, stamp, request_id, path, body):
        head = f"pushy2-request\n{self.key_id}\n{stamp}\n{request_id}\n{path}\n"
        return f"v2 {self.key_id} {stamp} {request_id} " + self.hmac(head.encode() + body)

    def token(self, claims):
        """A token with which a client can subscribe. claims is the JSON of the claims (PROTOCOL.md, section 6)."""
        part = base64.urlsafe_b64encode(claims.encode()).rstrip(b"=").decode()
        signature = self.hmac(f"pushy2-token\n{self.key_id}\n{part}".encode())
        return f"v2.{self.key_id}.{part}.{signature}"

    def hmac(self, text):
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()


def retry_after(header):
    if header.isdecimal():
        return int(header)
    try:
        return max(0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0


def main(command="", *rest):
    secret = os.environ.get("PUSHY_SECRET_KEY")
    if not secret:
        raise PushyError("PUSHY_SECRET_KEY is not set")
    pushy = Pushy(os.environ.get("PUSHY_URL") or "http://127.0.0.1:8123/pushy", secret)
    request_id = os.environ.get("PUSHY_ID")
    if command == "publish" and len(rest) in (2, 3):
        return pushy.publish(rest[0], rest[1], json.loads(rest[2] if rest[2:] else "{}"), request_id)
    if command == "publish-all" and not rest:
        return pushy.publish_all(json.load(sys.stdin), request_id)
    if command == "kick" and len(rest) in (1, 2):
        return pushy.kick(*rest, request_id=request_id)
    if command == "list" and len(rest) in (1, 2):
        return pushy.list(rest[0], json.loads(rest[1] if rest[1:] else "{}"))
    if command == "call" and len(rest) in (1, 2):
        return pushy.call(rest[0], json.loads(rest[1] if rest[1:] else "{}"), request_id)
    raise PushyError("the first lines of this file show how to call it")


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])))
    except (PushyError, ValueError) as error:
        sys.exit(f"pushy_api.py: {error}")
