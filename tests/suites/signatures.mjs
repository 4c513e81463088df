// Verifies what stands on standard input with the public libraries, unmodified: our deliveries with Standard Webhooks, what the
// sandbox signs with Mercado Pago's official SDK. Anything altered must be refused.
//
//   node signatures.mjs MODULES
//
// MODULES is the folder that holds node_modules.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.argv[2]}/package.json`);
const { Webhook } = require("standardwebhooks");
const { WebhookSignatureValidator } = require("mercadopago");
const given = JSON.parse(readFileSync(0, "utf8"));

for (const { body, headers, secrets, foreign_secrets } of given.deliveries) {
  for (const secret of secrets) {
    const webhook = new Webhook(secret);
    assert.equal(webhook.verify(body, headers).id, headers["webhook-id"]);
    assert.throws(() => webhook.verify(`${body} `, headers));
    assert.throws(() => webhook.verify(body, { ...headers, "webhook-id": "evt_other" }));
  }
  for (const secret of foreign_secrets) assert.throws(() => new Webhook(secret).verify(body, headers));
}

for (const { x_signature: xSignature, x_request_id: xRequestId, data_id: dataId, secret } of given.notifications) {
  const validate = (changed) => WebhookSignatureValidator.validate({ xSignature, xRequestId, dataId, secret, ...changed });
  validate({});
  assert.throws(() => validate({ dataId: "1" }));
  assert.throws(() => validate({ xRequestId: "other" }));
  assert.throws(() => validate({ xSignature: xSignature.replace("ts=1", "ts=2") }));
}

console.log(`node: ${given.deliveries.length} deliveries and ${given.notifications.length} notifications verified`);
