"use strict";
// The browser's part of the shop: tokenises the card at Mercado Pago (here: the sandbox), posts the token to the shop.
const at = (id) => document.getElementById(id);
const verdicts = {
  approved: "Approved",
  authorized: "Authorized",
  in_process: "Being reviewed",
  pending: "Waiting for the payment",
  rejected: "Declined",
};
const actions = {
  correct_card_data: "Check the card's data and pay again.",
  call_issuer: "Call your bank, authorise the amount, then pay again.",
  use_another_method: "Use another card or another means of payment.",
  change_installments: "Choose another number of installments.",
  check_earlier_payment: "You may have paid already: look up the earlier payment first.",
  complete_challenge: "Confirm the payment with your bank.",
  send_more_data: "Do not repeat it at once; the shop should send more about buyer and purchase.",
  retry_later: "Try the same again later.",
};
let sellers = [];
let paid = null;

function options(select, list, value, text) {
  select.replaceChildren(...list.map((item) => new Option(text(item), value(item))));
}

function seller() {
  return sellers.find((known) => known.seller_id === at("seller").value);
}

function fillCard() {
  const card = seller().cards[at("test-card").selectedIndex];
  if (!card) return;
  at("number").value = card.number;
  at("code").value = card.security_code;
}

function fillSeller() {
  const { cards, documents } = seller();
  options(at("test-card"), cards, (card) => card.number, (card) => `${card.payment_method_id} ${card.number}`);
  options(at("document-type"), documents, (kind) => kind.id, (kind) => kind.name);
  const needed = documents.length ? documents[0].min_length : 8;
  at("document-number").value = "12345678901234".slice(0, Math.max(needed, 6));
  fillCard();
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.message || answer.detail || `status ${response.status}`);
  return answer;
}

function show(verdict, reason, advice) {
  at("verdict").textContent = verdict;
  at("reason").textContent = reason;
  at("advice").textContent = advice;
  at("outcome").hidden = false;
  at("outcome").focus();
}

async function pay(event) {
  event.preventDefault();
  at("submit").disabled = true;
  at("refund").hidden = true;
  try {
    const to = seller();
    const identification = { type: at("document-type").value || undefined, number: at("document-number").value };
    if (!identification.type) delete identification.number;
    const token = await post(`/v1/card_tokens?public_key=${encodeURIComponent(to.public_key)}`, {
      card_number: at("number").value,
      expiration_month: Number(at("month").value),
      expiration_year: Number(at("year").value),
      security_code: at("code").value,
      cardholder: { name: at("name").value, identification },
    });
    const card = to.cards.find((known) => known.number === at("number").value.replace(/\D/g, ""));
    const payment = await post(`/process_payment?seller=${encodeURIComponent(to.seller_id)}`, {
      token: token.id,
      payment_method_id: card ? card.payment_method_id : undefined,
      transaction_amount: Number(at("amount").value),
      installments: Number(at("installments").value),
      description: "Blue shirt",
      payer: { email: at("email").value, identification },
    });
    paid = { seller: to.seller_id, id: payment.id };
    const action = (payment.decline || "").split("action=")[1];
    show(
      verdicts[payment.status] || payment.status,
      `${payment.status_detail}, payment ${payment.id}`,
      payment.status === "rejected" ? actions[action] || "Use another means of payment." : "",
    );
    at("refund").hidden = payment.status !== "approved";
  } catch (error) {
    show("Not paid", error.message, "");
  } finally {
    at("submit").disabled = false;
  }
}

async function refund() {
  at("refund").disabled = true;
  try {
    const back = await post("/process_refund", paid);
    show("Refunded", `${back.amount} given back, refund ${back.id}`, "");
    at("refund").hidden = true;
  } catch (error) {
    show("Not refunded", error.message, "");
  } finally {
    at("refund").disabled = false;
  }
}

async function open() {
  const response = await fetch("/storefront/sellers");
  const answer = await response.json().catch(() => ({}));
  if (!response.ok || !Array.isArray(answer)) {
    show("The sellers cannot be read", answer.message || answer.detail || "", "");
    return;
  }
  sellers = answer;
  at("none").hidden = sellers.length > 0;
  at("submit").disabled = sellers.length === 0;
  if (!sellers.length) return;
  options(at("seller"), sellers, (to) => to.seller_id, (to) => `${to.seller_id} (${to.nickname}, ${to.currency_id})`);
  fillSeller();
}

at("seller").addEventListener("change", fillSeller);
at("test-card").addEventListener("change", fillCard);
at("pay").addEventListener("submit", pay);
at("refund").addEventListener("click", refund);
open();
