"""Mercado Pago's official Python SDK, unmodified: base URL and token are set, nothing else.

    sdk.py BASE TOKEN TOKENISE

BASE is the API's origin (or the connector's `/proxy/~`), TOKEN what the SDK authorises with, TOKENISE the URL that a buyer's
browser would tokenise a card at. Drives every resource of the route table that the SDK has and says so in its last line.
"""
import json
import sys
import urllib.request
import uuid

import mercadopago
from mercadopago.config import RequestOptions
from mercadopago.config.config import Config

base, token, tokenise = sys.argv[1:4]
Config._Config__api_base_url = base
sdk = mercadopago.SDK(token)
calls = 0


def ok(answer, *statuses):
    """The body of an answer that must have one of the statuses."""
    global calls
    calls += 1
    assert answer["status"] in (statuses or (200, 201)), answer
    return answer["response"]


def card_token(name="APRO", **fields):
    """As a buyer's browser does it: straight to Mercado Pago, with the seller's public key."""
    card = fields or {
        "card_number": "5031433215406351",
        "expiration_month": 11,
        "expiration_year": 2040,
        "cardholder": {"name": name, "identification": {"type": "DNI", "number": "12345678"}},
    }
    body = json.dumps({"security_code": "123", **card}).encode()
    request = urllib.request.Request(tokenise, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["id"]


def payment(name="APRO", **fields):
    """A card payment."""
    return {
        "token": card_token(name),
        "transaction_amount": 100.5,
        "installments": 1,
        "payment_method_id": "master",
        "payer": {"email": "buyer@example.com"},
        **fields,
    }


me = ok(sdk.user().get())
assert me["id"] and me["site_id"]
assert any(method["id"] == "master" for method in ok(sdk.payment_methods().list_all()))
assert all(kind["id"] for kind in ok(sdk.identification_type().list_all()))

# Payments, their outcomes, capture and cancellation.
paid = ok(sdk.payment().create(payment(external_reference="order-1")), 201)
assert (paid["status"], paid["status_detail"]) == ("approved", "accredited")
assert ok(sdk.payment().get(paid["id"]))["id"] == paid["id"]
rejected = ok(sdk.payment().create(payment("FUND")), 201)
assert (rejected["status"], rejected["status_detail"]) == ("rejected", "cc_rejected_insufficient_amount")
held = ok(sdk.payment().create(payment(capture=False)), 201)
assert held["status"] == "authorized"
assert ok(sdk.payment().capture(held["id"]))["status"] == "approved"
pending = ok(sdk.payment().create(payment("CONT")), 201)
assert ok(sdk.payment().update(pending["id"], {"status": "cancelled"}))["status"] == "cancelled"
found = ok(sdk.payment().search({"sort": "date_created", "criteria": "desc", "external_reference": "order-1"}))
assert [each["id"] for each in found["results"]] == [paid["id"]], found

# The same idempotency key charges once.
options = RequestOptions(access_token=token, custom_headers={"x-idempotency-key": str(uuid.uuid4())})
body = payment()
first, second = (ok(sdk.payment().create(body, options))["id"] for _ in range(2))
assert first == second

# Refunds.
part = ok(sdk.refund().create(paid["id"], {"amount": 40.25}), 201)
assert float(part["amount"]) == 40.25
ok(sdk.refund().create(paid["id"]), 201)
assert len(ok(sdk.refund().list_all(paid["id"]))) == 2
assert ok(sdk.refund().get(paid["id"], part["id"]))["id"] == part["id"]

# Customers and their cards.
email = f"buyer-{uuid.uuid4().hex[:12]}@example.com"
customer = ok(sdk.customer().create({"email": email, "first_name": "Ana"}), 201)
assert ok(sdk.customer().get(customer["id"]))["email"] == email
ok(sdk.customer().update(customer["id"], {"last_name": "Prueba"}))
assert ok(sdk.customer().search({"email": email}))["results"][0]["id"] == customer["id"]
card = ok(sdk.card().create(customer["id"], {"token": card_token()}))
assert card["last_four_digits"] == "6351"
assert [each["id"] for each in ok(sdk.card().list_all(customer["id"]))] == [card["id"]]
assert ok(sdk.card().get(customer["id"], card["id"]))["id"] == card["id"]
saved = payment(payer={"type": "customer", "id": customer["id"]})
saved["token"] = card_token(card_id=str(card["id"]))
assert ok(sdk.payment().create(saved), 201)["status"] == "approved"

# Plans, subscriptions and what they charge.
recurring = {"frequency": 1, "frequency_type": "months", "transaction_amount": 10, "currency_id": paid["currency_id"]}
plan = ok(sdk.plan().create({"reason": "Yoga classes", "auto_recurring": recurring, "back_url": "https://shop.example.com"}))
assert ok(sdk.plan().get(plan["id"]))["reason"] == "Yoga classes"
assert ok(sdk.plan().update(plan["id"], {"reason": "Yoga"}))["reason"] == "Yoga"
assert ok(sdk.plan().search({"limit": 5}))["results"]
subscription = ok(
    sdk.preapproval().create(
        {
            "reason": "Yoga classes",
            "payer_email": "test_user_1@testuser.com",
            "card_token_id": card_token(),
            "auto_recurring": recurring,
            "back_url": "https://shop.example.com",
            "status": "authorized",
        }
    )
)
assert subscription["status"] == "authorized"
assert ok(sdk.preapproval().get(subscription["id"]))["id"] == subscription["id"]
assert ok(sdk.subscription().search({"payer_email": "test_user_1@testuser.com"}))["results"]
charged = ok(sdk.invoice().search({"preapproval_id": subscription["id"]}))["results"]
if charged:
    assert ok(sdk.invoice().get(charged[0]["id"]))["id"] == charged[0]["id"]
assert ok(sdk.preapproval().update(subscription["id"], {"status": "paused"}))["status"] == "paused"
assert ok(sdk.preapproval().update(subscription["id"], {"status": "cancelled"}))["status"] == "cancelled"

ok(sdk.card().delete(customer["id"], card["id"]))
ok(sdk.customer().delete(customer["id"]))

# Orders: paid, refunded in part, canceled, and put together one transaction at a time.
def order(mode="automatic", **fields):
    """An order of one card payment."""
    method = {"id": "master", "type": "credit_card", "installments": 1, "token": card_token()}
    return {
        "type": "online",
        "processing_mode": mode,
        "total_amount": "100.50",
        "payer": {"email": "buyer@example.com"},
        "transactions": {"payments": [{"amount": "100.50", "payment_method": method}]},
        **fields,
    }


bought = ok(sdk.order().create(order(external_reference="order-3")), 201)
assert (bought["status"], bought["status_detail"]) == ("processed", "accredited")
assert ok(sdk.order().get(bought["id"]))["id"] == bought["id"]
part = {"transactions": [{"id": bought["transactions"]["payments"][0]["id"], "amount": "40.00"}]}
assert ok(sdk.order().refund_transaction(bought["id"], part), 201)["status_detail"] == "partially_refunded"
held = ok(sdk.order().create(order(capture_mode="manual")), 201)
assert ok(sdk.order().capture(held["id"]))["status"] == "processed"
assert ok(sdk.order().cancel(ok(sdk.order().create(order("manual")), 201)["id"]))["status"] == "canceled"
body = order("manual")
payments = body.pop("transactions")
opened = ok(sdk.order().create(body), 201)
added = ok(sdk.order().create_transaction(opened["id"], payments), 201)["payments"][0]
assert ok(sdk.order().update_transaction(opened["id"], added["id"], {"payment_method": {"installments": 3}}))["id"]
assert ok(sdk.order().process(opened["id"]))["status"] == "processed"
days = {"begin_date": "2020-01-01T00:00:00Z", "end_date": "2090-01-01T00:00:00Z", "external_reference": "order-3"}
assert [each["id"] for each in ok(sdk.order().search(days))["data"]] == [bought["id"]]

# Preferences, merchant orders, chargebacks.
items = [{"title": "Blue shirt", "quantity": 2, "unit_price": 10.5}]
preference = ok(sdk.preference().create({"items": items, "external_reference": "order-4"}), 201)
assert ok(sdk.preference().get(preference["id"]))["init_point"] == preference["init_point"]
assert ok(sdk.preference().update(preference["id"], {"expires": True}))["expires"]
assert ok(sdk.preference().search({"external_reference": "order-4"}))["elements"]
merchant_order = ok(sdk.merchant_order().create({"preference_id": preference["id"]}), 201)
assert ok(sdk.merchant_order().get(merchant_order["id"]))["status"] == "opened"
ok(sdk.merchant_order().update(merchant_order["id"], {"additional_info": "soon"}))
assert ok(sdk.merchant_order().search({"preference_id": preference["id"]}))["elements"]
assert ok(sdk.chargeback().search({"payment_id": paid["id"]}))["results"] == []

# Errors come as the SDK's own error answers, also those that the connector gives itself.
missing = sdk.payment().get(1)
assert missing["status"] == 404 and missing["response"]["message"], missing
refused = mercadopago.SDK("mck_" + "x" * 40 + "~nobody").user().get()
assert refused["status"] == 401 and refused["response"]["message"], refused
if "~" in token:
    absent = mercadopago.SDK(token.split("~")[0] + "~nobody").user().get()
    assert absent["status"] == 404 and absent["response"]["error"] == "connection_not_found", absent
print(f"python sdk: {calls} calls answered as expected")
