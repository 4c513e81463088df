// Mercado Pago's official Node SDK, unmodified: base URL and token are set, nothing else.
//
//   node sdk.mjs MODULES BASE TOKEN TOKENISE [TOKEN TOKENISE]
//
// MODULES is the folder that holds node_modules, BASE the API's origin (or the connector's `/proxy/~`), each TOKEN what the SDK
// authorises with, TOKENISE the URL that a buyer's browser would tokenise a card at. With a second seller, 1,000 calls of each
// are interleaved in this one process and none may reach the other's account.
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

const [modules, base, token, tokenise, otherToken] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const sdk = require("mercadopago");
require("mercadopago/dist/utils/config").AppConfig.BASE_URL = base;

const config = new sdk.MercadoPagoConfig({ accessToken: token });
let calls = 0;
const ok = async (call) => {
  calls += 1;
  return call;
};

const cardToken = async (card = {}) => {
  const body = {
    security_code: "123",
    ...(card.card_id
      ? card
      : {
          card_number: "5031433215406351",
          expiration_month: 11,
          expiration_year: 2040,
          cardholder: { name: card.name ?? "APRO", identification: { type: "DNI", number: "12345678" } },
        }),
  };
  const answer = await fetch(tokenise, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 201);
  return (await answer.json()).id;
};

const paymentOf = async (name, fields = {}) => ({
  token: await cardToken({ name }),
  transaction_amount: 100.5,
  installments: 1,
  payment_method_id: "master",
  payer: { email: "buyer@example.com" },
  ...fields,
});

const me = await ok(new sdk.User(config).get());
assert.ok(me.id);
assert.ok((await ok(new sdk.PaymentMethod(config).get())).some((method) => method.id === "master"));
assert.ok((await ok(new sdk.IdentificationType(config).list())).length >= 0);

const payment = new sdk.Payment(config);
const paid = await ok(payment.create({ body: await paymentOf("APRO", { external_reference: "order-2" }) }));
assert.equal(paid.status, "approved");
assert.equal((await ok(payment.get({ id: paid.id }))).id, paid.id);
const rejected = await ok(payment.create({ body: await paymentOf("SECU") }));
assert.equal(rejected.status_detail, "cc_rejected_bad_filled_security_code");
const held = await ok(payment.create({ body: await paymentOf("APRO", { capture: false }) }));
assert.equal((await ok(payment.capture({ id: held.id }))).status, "approved");
const pending = await ok(payment.create({ body: await paymentOf("CONT") }));
assert.equal((await ok(payment.cancel({ id: pending.id }))).status, "cancelled");
const found = await ok(payment.search({ options: { external_reference: "order-2" } }));
assert.equal(found.results.length, 1);

const body = await paymentOf("APRO");
const requestOptions = { idempotencyKey: randomUUID() };
const first = await ok(payment.create({ body, requestOptions }));
const second = await ok(payment.create({ body, requestOptions: { ...requestOptions } }));
assert.equal(first.id, second.id);

const refund = new sdk.PaymentRefund(config);
const part = await ok(refund.create({ payment_id: paid.id, body: { amount: 40.25 }, requestOptions: { idempotencyKey: randomUUID() } }));
assert.equal(Number(part.amount), 40.25);
await ok(refund.total({ payment_id: paid.id, requestOptions: { idempotencyKey: randomUUID() } }));
assert.equal((await ok(refund.list({ payment_id: paid.id }))).length, 2);
assert.equal((await ok(refund.get({ payment_id: paid.id, refund_id: part.id }))).id, part.id);

const customers = new sdk.Customer(config);
const email = `buyer-${randomUUID()}@example.com`;
const customer = await ok(customers.create({ body: { email, first_name: "Ana" } }));
assert.equal((await ok(customers.get({ customerId: customer.id }))).email, email);
await ok(customers.update({ customerId: customer.id, body: { last_name: "Prueba" } }));
assert.equal((await ok(customers.search({ options: { email } }))).results[0].id, customer.id);
const cards = new sdk.CustomerCard(config);
const card = await ok(cards.create({ customerId: customer.id, body: { token: await cardToken() } }));
assert.equal((await ok(cards.list({ customerId: customer.id }))).length, 1);
assert.equal((await ok(cards.get({ customerId: customer.id, cardId: card.id }))).id, card.id);
await ok(cards.remove({ customerId: customer.id, cardId: card.id }));

const plans = new sdk.PreApprovalPlan(config);
const auto_recurring = { frequency: 1, frequency_type: "months", transaction_amount: 10, currency_id: paid.currency_id };
const plan = await ok(plans.create({ body: { reason: "Yoga classes", auto_recurring, back_url: "https://shop.example.com" } }));
assert.equal((await ok(plans.get({ preApprovalPlanId: plan.id }))).id, plan.id);
assert.equal((await ok(plans.update({ id: plan.id, updatePreApprovalPlanRequest: { reason: "Yoga" } }))).reason, "Yoga");
assert.ok((await ok(plans.search({ options: { limit: 5 } }))).results.length > 0);
const subscriptions = new sdk.PreApproval(config);
const subscription = await ok(
  subscriptions.create({
    body: {
      reason: "Yoga classes",
      payer_email: "test_user_2@testuser.com",
      card_token_id: await cardToken(),
      auto_recurring,
      back_url: "https://shop.example.com",
      status: "authorized",
    },
  }),
);
assert.equal(subscription.status, "authorized");
assert.equal((await ok(subscriptions.get({ id: subscription.id }))).id, subscription.id);
assert.ok((await ok(subscriptions.search({ options: { payer_email: "test_user_2@testuser.com" } }))).results.length > 0);
assert.equal((await ok(subscriptions.update({ id: subscription.id, body: { status: "paused" } }))).status, "paused");
assert.ok((await ok(new sdk.Invoice(config).search({ options: { preapproval_id: subscription.id } }))).results.length >= 0);
await ok(customers.remove({ customerId: customer.id }));

const orders = new sdk.Order(config);
const orderOf = async (processing_mode, fields = {}) => ({
  type: "online",
  processing_mode,
  total_amount: "100.50",
  payer: { email: "buyer@example.com" },
  transactions: {
    payments: [
      { amount: "100.50", payment_method: { id: "master", type: "credit_card", installments: 1, token: await cardToken() } },
    ],
  },
  ...fields,
});
// A key for each call: this SDK keeps the options of a call for the next.
const once = () => ({ requestOptions: { idempotencyKey: randomUUID() } });
const bought = await ok(orders.create({ body: await orderOf("automatic", { external_reference: "order-5" }), ...once() }));
assert.equal(bought.status_detail, "accredited");
assert.equal((await ok(orders.get({ id: bought.id }))).id, bought.id);
assert.equal((await ok(orders.refund({ id: bought.id, ...once() }))).status_detail, "refunded");
const heldOrder = await ok(orders.create({ body: await orderOf("automatic", { capture_mode: "manual" }), ...once() }));
assert.equal((await ok(orders.capture({ id: heldOrder.id, ...once() }))).status, "processed");
const canceled = await ok(orders.create({ body: await orderOf("manual"), ...once() }));
assert.equal((await ok(orders.cancel({ id: canceled.id, ...once() }))).status, "canceled");
const { transactions, ...open } = await orderOf("manual");
const opened = await ok(orders.create({ body: open, ...once() }));
await ok(orders.createTransaction({ id: opened.id, body: transactions, ...once() }));
assert.equal((await ok(orders.process({ id: opened.id, ...once() }))).status, "processed");

const preferences = new sdk.Preference(config);
const items = [{ id: "1", title: "Blue shirt", quantity: 2, unit_price: 10.5 }];
const preference = await ok(preferences.create({ body: { items, external_reference: "order-6" } }));
assert.equal((await ok(preferences.get({ preferenceId: preference.id }))).id, preference.id);
const changed = await ok(preferences.update({ id: preference.id, updatePreferenceRequest: { items, expires: true } }));
assert.equal(changed.expires, true);
assert.ok((await ok(preferences.search({ options: { external_reference: "order-6" } }))).elements.length > 0);
const merchantOrders = new sdk.MerchantOrder(config);
const merchantOrder = await ok(merchantOrders.create({ body: { preference_id: preference.id } }));
assert.equal((await ok(merchantOrders.get({ merchantOrderId: merchantOrder.id }))).status, "opened");
await ok(merchantOrders.update({ merchantOrderId: merchantOrder.id, body: { additional_info: "soon" } }));
assert.ok((await ok(merchantOrders.search({ options: { preference_id: preference.id } }))).elements.length > 0);
assert.equal((await ok(new sdk.Chargeback(config).search({ options: { payment_id: paid.id } }))).results.length, 0);

// Errors come as the SDK's own errors, also those that the connector gives itself.
await assert.rejects(payment.get({ id: 1 }), (error) => error.status === 404 && Boolean(error.message));
const stranger = new sdk.MercadoPagoConfig({ accessToken: `mck_${"x".repeat(40)}~nobody` });
await assert.rejects(new sdk.User(stranger).get(), (error) => error.status === 401 && Boolean(error.message));
if (token.includes("~")) {
  const absent = new sdk.MercadoPagoConfig({ accessToken: `${token.split("~")[0]}~nobody` });
  await assert.rejects(new sdk.User(absent).get(), (error) => {
    assert.equal(error.constructor.name, "MPNotFoundError");
    assert.deepEqual([error.status, error.error], [404, "connection_not_found"]);
    return Boolean(error.message);
  });
}

if (otherToken) {
  const sellers = [config, new sdk.MercadoPagoConfig({ accessToken: otherToken })].map((each) => new sdk.User(each));
  const accounts = await Promise.all(sellers.map((seller) => seller.get().then((answer) => answer.id)));
  assert.notEqual(accounts[0], accounts[1]);
  for (let round = 0; round < 50; round += 1) {
    const answers = await Promise.all(Array.from({ length: 40 }, (_, index) => sellers[index % 2].get()));
    answers.forEach((answer, index) => assert.equal(answer.id, accounts[index % 2]));
    calls += 40;
  }
}
console.log(`node sdk: ${calls} calls answered as expected`);
