# Verifies what stands on standard input with the public libraries, unmodified: our deliveries with Standard Webhooks, what the
# sandbox signs with Mercado Pago's official SDK. Anything altered must be refused.
import json
import sys

from mercadopago.webhook import InvalidWebhookSignatureError, WebhookSignatureValidator
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

given = json.load(sys.stdin)


def refused(call, error):
    try:
        call()
    except error:
        return
    raise AssertionError("something altered was accepted")


for delivery in given["deliveries"]:
    body, headers = delivery["body"], delivery["headers"]
    for secret in delivery["secrets"]:
        assert Webhook(secret).verify(body, headers)["id"] == headers["webhook-id"]
        refused(lambda: Webhook(secret).verify(body + " ", headers), WebhookVerificationError)
        refused(lambda: Webhook(secret).verify(body, {**headers, "webhook-id": "evt_other"}), WebhookVerificationError)
    for secret in delivery["foreign_secrets"]:
        refused(lambda: Webhook(secret).verify(body, headers), WebhookVerificationError)

for one in given["notifications"]:
    validate = WebhookSignatureValidator.validate
    validate(one["x_signature"], one["x_request_id"], one["data_id"], one["secret"])
    refused(lambda: validate(one["x_signature"], one["x_request_id"], "1", one["secret"]), InvalidWebhookSignatureError)
    refused(lambda: validate(one["x_signature"], "other", one["data_id"], one["secret"]), InvalidWebhookSignatureError)
    later = one["x_signature"].replace("ts=1", "ts=2")
    refused(lambda: validate(later, one["x_request_id"], one["data_id"], one["secret"]), InvalidWebhookSignatureError)

print(f"python: {len(given['deliveries'])} deliveries and {len(given['notifications'])} notifications verified")
