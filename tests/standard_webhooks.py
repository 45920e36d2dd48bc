"""Verifies posts that Nightbell made with the official library of Standard Webhooks (PyPI, `standardwebhooks`).

Reads JSON from standard input: a list of {name, secret, headers, body (base64), good}. Prints a line for each; fails if the
library sees one otherwise than it should be.
"""

import base64
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

wrong = 0
for case in json.load(sys.stdin):
    try:
        Webhook(case["secret"]).verify(base64.b64decode(case["body"]), case["headers"])
        good, why = True, ""
    except WebhookVerificationError as error:
        good, why = False, f" ({error})"
    wrong += good != case["good"]
    print(f"{case['name']}: {'verified' if good else 'refused'}{why}{'' if good == case['good'] else '  <- WRONG'}")
sys.exit(1 if wrong else 0)
